"""Stages of recipes that nothing disturbs: what they leave, how long they take, and how many calls change files."""

import contextlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.calls import listening
from tests.fuzz.children import fork, processor_time
from tests.fuzz.folders import differing, results
from training import recipes
from training.__main__ import main
from training.engine.options import only

LAZY = ("torch._dynamo", "matplotlib.pyplot", "pandas", "timm", "torchvision", "scipy.stats", "zuko", "onnx", "sympy")
LONGEST = 600.0  # seconds of a stage


@dataclass(frozen=True)
class Name:
    """A stage by the names that a table has.

    Args:
        recipe: A recipe that has it.
        stage: Its name there.
        kind: Its class, whose code other stages run with other settings.
    """

    recipe: str
    stage: str
    kind: str


@dataclass(frozen=True)
class Whole:
    """A stage that nothing disturbed.

    Args:
        name: Its names.
        needs: The stages that it needs, directly or not.
        out: The folder of the recipe's finished stages.
        seconds: Of processor time, from the first call that changes its files to the last.
        calls: How many calls change its files.
        results: The files that it leaves.
        timings: Those that two runs leave differently, because they hold measured times.
    """

    name: Name
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

    def differs(self, out: Path) -> list[str]:
        """Names of files that are not as here; of measured times only whether they are there."""
        found = results(out / self.name.stage)
        return [
            name
            for name in differing(found, self.results)
            if name not in self.timings or (name in found) != (name in self.results)
        ]

    def run(self, out: Path) -> int:
        """Runs the stage alone, in a folder of :meth:`place`; returns the exit status."""
        return command(self.name.recipe, out, "--only", self.name.stage)

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """A folder with the finished stages that are needed, by links."""
        with tempfile.TemporaryDirectory(dir=self.out.parent) as scratch:
            for need in self.needs:
                shutil.copytree(self.out / need, Path(scratch) / need, copy_function=os.link)
            yield Path(scratch)


def command(recipe: str, out: Path, *words: str) -> int:
    """Runs a recipe's smoke, as ``python -m training run`` does."""
    return main(["run", recipe, "--smoke", "--device", "cpu", "--out", str(out), *words])


def wholes(out: Path, names: Sequence[str], wanted: Callable[[Name], object] = lambda name: True) -> Iterator[Whole]:
    """Runs recipes into folders below ``out``, and yields each of their stages once, after a second run of it.

    Args:
        out: A folder, in which finished stages are reused.
        names: The recipes.
        wanted: Whether to yield a stage.
    """
    for module in LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    seen: set[tuple[str, str]] = set()
    for recipe in names:
        folder, stages = out / recipes.load(recipe).FOLDER, recipes.load(recipe).stages(smoke=True)
        found = [Name(recipe, name, type(stage).__name__) for name, stage in stages.items()]
        found = [name for name in found if (folder.name, name.stage) not in seen and wanted(name)]
        seen |= {(folder.name, name) for name in stages}
        if found:
            _succeed(lambda recipe=recipe, folder=folder: command(recipe, folder), 10 * LONGEST)
        for name in found:
            needs = [each for each in only(stages, [name.stage]) if each != name.stage]
            yield _measured(name, tuple(needs), folder)


def _measured(name: Name, needs: tuple[str, ...], out: Path) -> Whole:
    first, counted = results(out / name.stage), out / f".{name.stage}.calls"
    whole = Whole(name, needs, out, 0.0, 0, first, frozenset())
    with whole.place() as scratch:

        def run() -> int:
            times: list[float] = []
            with listening(scratch / name.stage, lambda call: times.append(processor_time(os.getpid()))):
                status = whole.run(scratch)
            counted.write_text(json.dumps([times[-1] - times[0], len(times)]))
            return status

        _succeed(run, LONGEST)
        timings = frozenset(differing(results(scratch / name.stage), first))
    seconds, calls = json.loads(counted.read_text())
    return Whole(name, needs, out, seconds, calls, first, timings)


def _succeed(run: Callable[[], int], seconds: float) -> None:
    ended = fork(run).wait(seconds)
    if ended.status:
        raise RuntimeError(f"a run that nothing disturbs ends with {ended.status}: {ended.said[-2000:]}")
