"""``python -m tests.fuzz``: what the tests run a short part of, for as long as is asked; records what comes of it.

python -m tests.fuzz --minutes 30           damaged inputs, answers and models, each kind in turn
python -m tests.fuzz --tries 1000           the same, by number of tries of each kind
python -m tests.fuzz kills --minutes 60     stages that are killed, and find the disk full, until each signal met each
                                            stage and each class of stages often; resumes its table
python -m tests.fuzz publishing             a publication that is disturbed at each request
python -m tests.fuzz power                  every state that a loss of power may leave
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import conftest as conftest  # before the client of the Hub: no try reaches the public one
from tests.fuzz import kills, power, publishing
from tests.fuzz.target import FAULTS, Tally, Target, Verdict, examine, judge
from tests.fuzz.targets import TARGETS
from training import recipes
from training.engine.records import RESULTS, write_table
from training.publish.faults import WITHOUT

TABLE = "faults.csv"
Tallies = dict[str, Tally]


def main(words: list[str] | None = None) -> int:
    """Runs one part; returns 1 if a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, formatter_class=_Format)
    parser.add_argument("part", nargs="?", default="targets", choices=("targets", "kills", "publishing", "power"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--tries", type=int, help="of each kind (targets), or of each signal at each stage (kills)")
    only = "kinds, or recipes, named like this"
    parser.add_argument("--only", action="extend", nargs="+", metavar="TEXT", help=only)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder of finished stages, for kills")
    options = parser.parse_args(words)
    options.commit = commit_of(Path(__file__).parent)  # before a table of record changes
    if options.part == "kills":
        return _kill(options)
    tallies = {"targets": _targets, "publishing": _publications, "power": _losses}[options.part](options)
    return int(any(tally.faults for tally in tallies.values()))


def _asked(options: argparse.Namespace, name: str) -> bool:
    return any(text in name for text in options.only or [""])


class _Format(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def _kill(options: argparse.Namespace) -> int:
    names = [name for name in recipes.names() if _asked(options, name) and name not in WITHOUT]
    table = options.results / kills.TABLE
    kills.record(table, options.out, options.tries or 1, names, options.minutes, options.commit)
    return int(any(row["outcome"] in kills.FAULTS for row in kills.read(table)))


def _targets(options: argparse.Namespace) -> Tallies:
    """Examines targets in turn, a batch of each, until the time is over or there are enough tries."""
    tallies: Tallies = {name: Tally() for name in TARGETS if _asked(options, name)}
    end = time.monotonic() + 60 * (options.minutes if options.tries or options.minutes < float("inf") else 1)
    for seed in itertools.count(options.seed):
        for name, tally in tallies.items():
            target, left = TARGETS[name], (options.tries or sys.maxsize) - tally.tries
            if time.monotonic() > end or all(0 < (options.tries or 0) <= each.tries for each in tallies.values()):
                return tallies
            if left > 0:
                with _counted(tally) as act:
                    examine(target, min(target.tries, left), seed, lambda case, act=act, to=target: act(to, case))
                _write(options, tallies)
    return tallies


def _publications(options: argparse.Namespace) -> Tallies:
    tallies: Tallies = {}
    for each in publishing.disturbances():
        tally = tallies.setdefault(f"publishing, {each.situation}: {each.fault}", Tally())
        _timed(tally, lambda each=each: publishing.judge(each))
        _write(options, tallies)
    return tallies


def _losses(options: argparse.Namespace) -> Tallies:
    tallies: Tallies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for target, states in power.targets(Path(scratch)):
            tally = tallies[target.name] = Tally()
            with _counted(tally) as act:
                for state in states:
                    act(target, state)
            _write(options, tallies)
    return tallies


@contextmanager
def _counted(tally: Tally) -> Iterator[Callable[[Target, Any], None]]:
    """Judges inputs of targets, each in a folder of its own, and counts the verdicts."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as scratch:

        def act(target: Target, case: Any) -> None:
            folder = Path(scratch) / str(next(numbers))
            folder.mkdir()
            _timed(tally, lambda: judge(target, case, folder))
            shutil.rmtree(folder)

        yield act


def _timed(tally: Tally, act: Callable[[], Verdict]) -> None:
    start = time.monotonic()
    verdict = act()
    tally.add(verdict)
    tally.seconds += time.monotonic() - start
    if verdict.outcome in FAULTS:
        print(f"{verdict.outcome}: {verdict.detail}", file=sys.stderr, flush=True)


def _write(options: argparse.Namespace, tallies: Tallies) -> None:
    """Puts what was counted in the place of earlier runs of the same kinds, with the commit that was tried."""
    rows: dict[str, Mapping[str, object]] = {row["kind"]: row for row in kills.read(options.results / TABLE)}
    for name, tally in tallies.items():
        if tally.tries:
            rows[name] = {"kind": name, "commit": options.commit, **tally.row()}
    write_table(options.results / TABLE, [*rows.values()])


def commit_of(folder: Path) -> str:
    """Returns the commit of a clone, with a plus if files differ from it; empty where there is no clone."""
    words = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
