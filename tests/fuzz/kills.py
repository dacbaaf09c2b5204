"""Stages of recipes that are killed, find the disk full or read-only, and are run again in the same folder."""

import csv
import errno
import io
import itertools
import os
import random
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.fuzz.calls import Call, listening
from tests.fuzz.children import HANGS, Ended, fork, noting_signals
from tests.fuzz.run_folders import to_remove
from tests.fuzz.undisturbed import LONGEST, Name, Whole, wholes

SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}  # and the status with which a command ends
GO_ON = "; run the same command again to resume"
SAID = {143: f"terminated{GO_ON}", 130: f"interrupted{GO_ON}"}
REFUSALS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS}  # errors of a call and of all later ones
Plan = tuple[str, str]  # how a stage is disturbed, and at a moment of what kind
KILLS: dict[str, list[Plan]] = {how: [(how, "call"), (how, "time")] for how in SIGNALS}
OTHERS: list[Plan] = [(how, "call") for how in REFUSALS]
OTHERS += [("no room", "bytes")]  # files that may not grow beyond some bytes, so that a part of one is written
PLANS = [*itertools.chain(*KILLS.values()), *OTHERS]
OF_CLASS = 20  # kills by each signal of the stages of a class, together
TABLE = "kills.csv"
Row = dict[str, str]
_FOUND = ("recipe", "stage", "class", "run", "kill", "moment", "place", "status", "outcome", "detail")
COLUMNS = (*_FOUND, "commit")  # that was tried
SAME, REMOVED, UNTOUCHED = "resumed, the same", "said what to remove, then the same", "ended before it"
FAULTS = ("wrong end", "differs", "not resumed", "hangs")


def disturb(whole: Whole, plans: Sequence[Plan], run: int) -> list[Row]:
    """Disturbs a stage in one folder, as it starts and each time that it resumes; returns a row for each disturbance.

    The last run is one that nothing disturbs, or that ends before it is disturbed. All rows have what came of it,
    except those of runs that ended otherwise than they should.

    Args:
        whole: The stage.
        plans: The ways to disturb it, which are taken in random order.
        run: Number of the folder, which gives the order and the moments.
    """
    chance, rows = random.Random(f"{whole.name.recipe} {whole.name.stage} {run}"), []
    with whole.place() as out:
        for how, moment in chance.sample(plans, len(plans)):
            place = _place(whole, moment, chance.random())
            ended, met = _disturbed(whole, out, how, moment, place)
            outcome, detail = _end(how, ended, met)
            values = (*vars(whole.name).values(), run, how, moment, place, ended.status, outcome, detail)
            rows.append(dict(zip(_FOUND, map(str, values), strict=True)))
            if outcome:
                break
        last, detail = _last(whole, out, done=rows[-1]["status"] == "0")
    for row in rows:
        if not row["outcome"] or (last in FAULTS and row["outcome"] == UNTOUCHED):
            row |= {"outcome": last, "detail": detail}
        row["detail"] = " ".join(row["detail"].split())[:300]
    return rows


def _place(whole: Whole, moment: str, share: float) -> float:
    """Returns the moment at a share of a run: the number of a call, seconds of processor time, or bytes of a file."""
    return {
        "call": 1 + int(share * whole.calls),
        "time": round(share * whole.seconds, 4),
        "bytes": int(share * whole.bytes),
    }[moment]


def _disturbed(whole: Whole, out: Path, how: str, moment: str, place: float) -> tuple[Ended, bool]:
    """Returns how a disturbed run ended, and whether it is known that it met a signal or a refusal."""
    ready, met = out / ".ready", out / ".met"
    ready.unlink(missing_ok=True)
    met.write_bytes(b"")

    def run() -> int:
        if moment == "bytes":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(place), resource.RLIM_INFINITY))
        heard = _at(place, how, met) if moment == "call" else lambda call: ready.touch()
        with listening(out / whole.name.stage, heard), noting_signals(met):
            return whole.run(out)

    ended = fork(run).wait(LONGEST, getattr(signal, how) if moment == "time" else 0, place, ready)
    return ended, bool(met.stat().st_size)


def _at(place: float, how: str, met: Path) -> Callable[[Call], None]:
    """Returns a listener that kills this process at a call, or refuses it and all later ones, and notes that it did.

    A full disk lets files be removed.
    """
    calls = 0

    def heard(call: Call) -> None:
        nonlocal calls
        calls += 1
        if how in REFUSALS and calls >= place and (how, call.kind) != ("full disk", "remove"):
            met.write_text(call.kind)
            raise OSError(REFUSALS[how], os.strerror(REFUSALS[how]), str(call.path))
        if how in SIGNALS and calls == place:
            signal.raise_signal(getattr(signal, how))

    return heard


def _end(how: str, ended: Ended, met: bool) -> tuple[str, str]:
    """Says what there is to say of the end of a disturbed run; nothing, if it was disturbed and ended as it should.

    A stage may do without what it is refused, but not without a signal that it got.
    """
    if ended.status == HANGS:
        return "hangs", ended.said[-300:]
    if "Traceback" in ended.said:
        return "wrong end", f"a traceback: {ended.said[-300:]}"
    if not met and (ended.status == 0 or (how in SIGNALS and ended.is_clear_error)):  # which says what to remove
        return UNTOUCHED, ""
    if ended.status == 0 and how not in SIGNALS:
        return "", ""
    expected = SIGNALS.get(how, 1)
    clear = ended.is_clear_error if expected == 1 else expected < 0 or ended.lines[-1:] == [SAID[expected]]
    return ("", "") if ended.status == expected and clear else ("wrong end", f"{ended.status}: {ended.lines[-1:]}")


def _last(whole: Whole, out: Path, *, done: bool) -> tuple[str, str]:
    """Says what comes of a folder in the end, and of a fault what it is.

    A run that ends with an error is run once more without what the error says to remove.
    """
    removed = None
    if not done:
        again = fork(lambda: whole.run(out)).wait(LONGEST)
        place = to_remove(re.sub(r"^error: ", "", again.lines[-1])) if again.status == 1 and again.lines else None
        if place and place.is_relative_to(out):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            again, removed = fork(lambda: whole.run(out)).wait(LONGEST), place
        if again.status:
            return "not resumed", again.said[-300:]
    if different := whole.differs(out):
        return "differs", ", ".join(different)
    return (REMOVED, str(removed)) if removed else (SAME, "")


def lacking(name: Name, rows: Sequence[Row], least: int) -> list[Plan]:
    """Returns ways in which a stage is still to be disturbed, of those that its class has met the least.

    Each signal has to meet it ``least`` times, and so have the refusals together.
    """
    here = Counter(row["kill"] for row in _met(rows) if (row["recipe"], row["stage"]) == (name.recipe, name.stage))
    of_class = _of_class(name, rows)
    ways = [plans for how, plans in KILLS.items() if here[how] < least]
    ways += [OTHERS] if sum(here[how] for how, _ in OTHERS) < least else []
    return [min(plans, key=lambda plan: of_class[plan]) for plans in ways]


def lacking_of_class(name: Name, rows: Sequence[Row]) -> list[Plan]:
    """Returns ways in which stages of a class are still to be disturbed.

    Each signal has to meet them :data:`OF_CLASS` times, and each refusal once.
    """
    of_class = _of_class(name, rows)
    ways = [plans for plans in KILLS.values() if sum(of_class[plan] for plan in plans) < OF_CLASS]
    return [*itertools.chain(*ways), *(plan for plan in OTHERS if not of_class[plan])]


def _of_class(name: Name, rows: Sequence[Row]) -> Counter[Plan]:
    return Counter((row["kill"], row["moment"]) for row in _met(rows) if row["class"] == name.kind)


def _met(rows: Sequence[Row]) -> Iterator[Row]:
    return (row for row in rows if row["outcome"] != UNTOUCHED)


def record(path: Path, out: Path, least: int, names: Sequence[str], minutes: float, commit: str) -> None:
    """Adds the disturbances that a table lacks, folder by folder; other processes may add to it at the same time.

    First those that each stage lacks, then those that a class of stages lacks, at the one that takes the least time.

    Args:
        path: The table.
        out: Folder of the finished stages, and of the disturbed ones while they are there.
        least: How often each signal has to meet each stage.
        names: The recipes.
        minutes: After which to stop.
        commit: That is tried.
    """
    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    quickest: dict[str, Whole] = {}
    for whole in wholes(out, names):
        quickest[whole.name.kind] = min(quickest.get(whole.name.kind, whole), whole, key=lambda each: each.seconds)
        _fill(path, whole, lambda rows, name=whole.name: lacking(name, rows, least), end, commit)
    for whole in quickest.values():
        _fill(path, whole, lambda rows, name=whole.name: lacking_of_class(name, rows), end, commit)


def _fill(path: Path, whole: Whole, lacks: Callable[[list[Row]], list[Plan]], end: float, commit: str) -> None:
    """Disturbs a stage, in a new folder each time, until nothing lacks or the time is over."""
    while time.monotonic() < end and (plans := lacks(rows := read(path))):
        of_stage = [row for row in rows if (row["recipe"], row["stage"]) == (whole.name.recipe, whole.name.stage)]
        run = 1 + max((int(row["run"].rpartition("-")[2]) for row in of_stage), default=0)
        _append(path, [row | {"commit": commit} for row in disturb(whole, plans, run)])


def _append(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(text.getvalue())


def read(path: Path) -> list[Row]:
    """Reads a table; no rows where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
