"""Stages of recipes that are killed, find the disk full or read-only, and are run again."""

import contextlib
import csv
import errno
import importlib
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.calls import Call, listening
from tests.fuzz.children import HANGS, Ended, fork
from tests.fuzz.folders import differing, results
from tests.fuzz.run_folders import to_remove
from training import recipes
from training.__main__ import main
from training.engine.options import only

SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}  # and the status with which a command ends
GO_ON = "; run the same command again to resume"
SAID = {143: f"terminated{GO_ON}", 130: f"interrupted{GO_ON}"}
REFUSALS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS}  # errors of a call and of all later ones
PLANS = [(how, moment) for moment in ("call", "time") for how in SIGNALS] + [(how, "call") for how in REFUSALS]
PLANS += [("no room", "bytes")]  # files that may not grow beyond some bytes, so that a part of one is written
WITHOUT = ("engine_cost",)  # starts clusters of Ray
LAZY = ("torch._dynamo", "matplotlib.pyplot", "pandas", "timm", "torchvision", "scipy.stats", "zuko", "onnx", "sympy")
TABLE = "kills.csv"
KEY = ("recipe", "stage", "kill", "moment")
COLUMNS = (*KEY, "place", "status", "outcome", "detail")
SAME, REMOVED, UNTOUCHED = "resumed, the same", "said what to remove, then the same", "ended before it"
FAULTS = ("wrong end", "differs", "not resumed", "hangs")
_LONGEST = 600.0  # seconds of a stage


@dataclass(frozen=True)
class Whole:
    """A stage that nothing disturbed.

    Args:
        recipe: A recipe that has it.
        name: Its name.
        needs: The stages that it needs, directly or not.
        out: The folder of the recipe's finished stages.
        seconds: From the first call that changes its files to the last.
        calls: How many calls change its files.
        results: The files that it leaves.
        timings: Those that two runs leave differently, because they hold measured times.
    """

    recipe: str
    name: str
    needs: tuple[str, ...]
    out: Path
    seconds: float
    calls: int
    results: Mapping[str, bytes]
    timings: frozenset[str]

    @property
    def bytes(self) -> int:
        """Of its largest file."""
        return max(map(len, self.results.values()), default=1)

    def differs(self, folder: Path) -> list[str]:
        """Names of files that are not as here; of measured times only whether they are there."""
        found = results(folder)
        return [
            name
            for name in differing(found, self.results)
            if name not in self.timings or (name in found) != (name in self.results)
        ]


def command(recipe: str, out: Path, *words: str) -> int:
    """Runs a recipe's smoke, as ``python -m training run`` does."""
    return main(["run", recipe, "--smoke", "--device", "cpu", "--out", str(out), *words])


def wholes(out: Path, names: Sequence[str]) -> Iterator[Whole]:
    """Runs recipes into folders below ``out``, and yields each of their stages once, after a second run of it."""
    for module in LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    seen: set[tuple[str, str]] = set()
    for recipe in names:
        folder = out / recipes.load(recipe).FOLDER
        ended = fork(lambda recipe=recipe, folder=folder: command(recipe, folder)).wait(10 * _LONGEST)
        if ended.status:
            raise RuntimeError(f"the smoke of {recipe} ends with {ended.status}: {ended.said[-2000:]}")
        stages = recipes.load(recipe).stages(smoke=True)
        for name in stages:
            if (folder.name, name) not in seen:
                seen.add((folder.name, name))
                needs = [each for each in only(stages, [name]) if each != name]
                yield _measured(recipe, name, tuple(needs), folder)


def _measured(recipe: str, name: str, needs: tuple[str, ...], out: Path) -> Whole:
    first, counted = results(out / name), out / f".{name}.calls"
    with _copy(out, needs) as scratch:

        def run() -> int:
            times: list[float] = []
            with listening(scratch / name, lambda call: times.append(time.monotonic())):
                status = command(recipe, scratch, "--only", name)
            counted.write_text(f"{len(times)} {times[-1] - times[0]}")
            return status

        ended = fork(run).wait(_LONGEST)
        if ended.status:
            raise RuntimeError(f"stage {name} of {recipe} ends with {ended.status}: {ended.said[-2000:]}")
        timings = frozenset(differing(results(scratch / name), first))
    calls, seconds = counted.read_text().split()
    return Whole(recipe, name, needs, out, float(seconds), int(calls), first, timings)


@contextlib.contextmanager
def _copy(out: Path, needs: Sequence[str]) -> Iterator[Path]:
    """A folder with the finished stages that are needed, by links."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        for need in needs:
            shutil.copytree(out / need, Path(scratch) / need, copy_function=os.link)
        yield Path(scratch)


def try_one(whole: Whole, how: str, moment: str, seed: str) -> dict[str, str]:
    """Disturbs a stage once, runs it again, and returns a row of the table."""
    share = random.Random(f"{whole.recipe} {whole.name} {how} {moment} {seed}").random()
    place = {
        "call": 1 + int(share * whole.calls),
        "time": round(share * whole.seconds, 3),
        "bytes": int(share * whole.bytes),
    }[moment]
    with _copy(whole.out, whole.needs) as out:
        ready = out / ".ready"

        def run() -> int:
            if moment == "bytes":
                resource.setrlimit(resource.RLIMIT_FSIZE, (place, resource.RLIM_INFINITY))
            heard = _at(place, how) if moment == "call" else lambda call: ready.touch()
            with listening(out / whole.name, heard):
                return command(whole.recipe, out, "--only", whole.name)

        number = getattr(signal, how) if moment == "time" else 0
        ended = fork(run).wait(_LONGEST, number, place, ready)
        outcome, detail = _judge(whole, out, how, ended)
    row = (whole.recipe, whole.name, how, moment, place, ended.status, outcome, " ".join(detail.split())[:300])
    return dict(zip(COLUMNS, map(str, row), strict=True))


def _at(place: int, how: str) -> Callable[[Call], None]:
    """Returns a listener that kills this process at a call, or refuses it and all later ones."""
    calls = 0

    def heard(call: Call) -> None:
        nonlocal calls
        calls += 1
        if how in REFUSALS and calls >= place and call.kind != "remove":
            raise OSError(REFUSALS[how], os.strerror(REFUSALS[how]), str(call.path))
        if how in SIGNALS and calls == place:
            signal.raise_signal(getattr(signal, how))

    return heard


def _judge(whole: Whole, out: Path, how: str, ended: Ended) -> tuple[str, str]:
    """Says what came of a disturbed run and of the next one, and of a fault what it is."""
    if ended.status == HANGS:
        return "hangs", ended.said[-300:]
    fault = _wrong_end(how, ended)
    if fault:
        return "wrong end", fault
    untouched = ended.status == 0
    again, removed = _again(whole, out)
    if again.status:
        return "not resumed", again.said[-300:]
    if different := whole.differs(out / whole.name):
        return "differs", ", ".join(different)
    return (UNTOUCHED if untouched else REMOVED if removed else SAME), str(removed or "")


def _again(whole: Whole, out: Path) -> tuple[Ended, Path | None]:
    """Runs a stage again, and once more without what the error says to remove."""
    again = fork(lambda: command(whole.recipe, out, "--only", whole.name)).wait(_LONGEST)
    place = to_remove(re.sub(r"^error: ", "", again.lines[-1])) if again.status == 1 and again.lines else None
    if place is None or not place.is_relative_to(out):
        return again, None
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return fork(lambda: command(whole.recipe, out, "--only", whole.name)).wait(_LONGEST), place


def _wrong_end(how: str, ended: Ended) -> str:
    """Says what is wrong with the way a run ended; empty if it is as it should be."""
    if ended.status == 0:
        return ""
    if "Traceback" in ended.said:
        return f"a traceback: {ended.said[-300:]}"
    if how in SIGNALS:
        expected = SIGNALS[how]
        if ended.status != expected or (expected > 0 and ended.lines[-1:] != [SAID[expected]]):
            return f"status {ended.status}, expected {expected}: {ended.lines[-1:]}"
        return ""
    return "" if ended.is_clear_error else f"status {ended.status}: {ended.lines[-1:]}"


def record(path: Path, out: Path, rounds: int, names: Sequence[str], minutes: float) -> None:
    """Adds the tries that a table lacks, row by row: a round over all stages, then the next one.

    Args:
        path: The table.
        out: Folder of the finished stages, and of the disturbed ones while they are there.
        rounds: How often each stage is disturbed in each way.
        names: The recipes.
        minutes: After which to stop.
    """
    end = time.monotonic() + 60 * minutes
    there = Counter(tuple(row[key] for key in KEY) for row in read(path))
    out.mkdir(parents=True, exist_ok=True)
    found: Iterable[Whole] = wholes(out, names)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not there:
            writer.writeheader()
        for turn in range(rounds):
            seen = []
            for whole in found:
                seen.append(whole)
                for how, moment in PLANS:
                    if time.monotonic() > end:
                        return
                    if there[whole.recipe, whole.name, how, moment] <= turn:
                        writer.writerow(try_one(whole, how, moment, str(turn)))
                        file.flush()
            found = seen


def read(path: Path) -> list[dict[str, str]]:
    """Reads a table; no rows where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
