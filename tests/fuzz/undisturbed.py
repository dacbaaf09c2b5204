"""Stages of recipes that nothing disturbs: what they leave, how long they take, and how many calls change files."""

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.fuzz.calls import listening
from tests.fuzz.children import fork, processor_time
from tests.fuzz.folders import differing, entries, results
from training import recipes
from training.__main__ import main
from training.engine.options import only
from training.engine.records import DONE, check_outputs

LAZY = ("torch._dynamo", "matplotlib.pyplot", "pandas", "timm", "torchvision", "scipy.stats", "zuko", "onnx", "sympy")
LONGEST = 600.0  # seconds of a stage
AGAIN = 3  # runs by which a difference is told from measured times


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
    """

    name: Name
    needs: tuple[str, ...]
    out: Path
    seconds: float = 0.0
    calls: int = 0

    @cached_property
    def results(self) -> dict[str, bytes]:
        """The files that it leaves."""
        return results(self.out / self.name.stage)

    @cached_property
    def timings(self) -> set[str]:
        """Keys and columns of its files whose values other runs leave differently, because they are measured times.

        Files that are no tables have their names as keys.
        """
        return self._other_values()

    def _other_values(self) -> set[str]:
        """Runs the stage once more; returns the keys of values that are others then."""
        with self.place() as scratch:
            _succeed(lambda: self.run(scratch))
            again = results(scratch / self.name.stage)
        found = set[str]()
        for name in differing(again, self.results):
            pairs = zip(entries(name, again[name]), entries(name, self.results[name]), strict=True)
            found |= {key for (key, value), (_, other) in pairs if value != other}
        return found

    @property
    def bytes(self) -> int:
        """Of its largest file."""
        return max(map(len, self.results.values()), default=1)

    def differs(self, out: Path) -> list[str]:
        """Names of files that are not as here, but for measured times; or what the digests of the summary deny."""
        found = results(out / self.name.stage)
        names = self._unlike(found)
        for _ in range(AGAIN):  # two runs may measure the same time by chance
            if not names:
                break
            self.timings.update(self._other_values())
            names = self._unlike(found)
        if DONE in found and not names:
            try:
                check_outputs(out / self.name.stage)
            except ValueError as error:
                return [str(error)]
        return names

    def _unlike(self, found: Mapping[str, bytes]) -> list[str]:
        return [
            name
            for name in differing(found, self.results)
            if not (name in found and name in self.results)
            or self._lasting(name, found[name]) != self._lasting(name, self.results[name])
        ]

    def _lasting(self, name: str, content: bytes) -> list[tuple[str, object]]:
        return [(key, None if key in self.timings else value) for key, value in entries(name, content)]

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


def wholes(out: Path, names: Sequence[str]) -> Iterator[Whole]:
    """Runs the stages of recipes, each once, into folders below ``out``, and yields them; finished ones are reused."""
    for module in LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    seen: set[tuple[str, str]] = set()
    for recipe in names:
        folder, stages = out / recipes.load(recipe).FOLDER, recipes.load(recipe).stages(smoke=True)
        for name, stage in stages.items():
            if (folder.name, name) not in seen:
                seen.add((folder.name, name))
                others = [of] if (of := getattr(stage, "of", "")) else []  # which may be on record instead
                needs = tuple(each for each in only(stages, [name, *others]) if each != name)
                yield _measured(Whole(Name(recipe, name, type(stage).__name__), needs, folder))


def _measured(whole: Whole) -> Whole:
    """Runs a stage once, unless it is there with its measures."""
    place, measures = whole.out / whole.name.stage, whole.out / f".{whole.name.stage}.json"
    if not (measures.exists() and place.exists()):
        whole.out.mkdir(parents=True, exist_ok=True)
        with whole.place() as scratch:

            def run() -> int:
                times: list[float] = []
                with listening(scratch / place.name, lambda call: times.append(processor_time(os.getpid()))):
                    status = whole.run(scratch)
                measures.write_text(json.dumps({"seconds": times[-1] - times[0], "calls": len(times)}))
                return status

            _succeed(run)
            shutil.rmtree(place, ignore_errors=True)
            (scratch / place.name).rename(place)
    return dataclasses.replace(whole, **json.loads(measures.read_text()))


def _succeed(run: Callable[[], int]) -> None:
    ended = fork(run).wait(LONGEST)
    if ended.status:
        raise RuntimeError(f"a run that nothing disturbs ends with {ended.status}: {ended.said[-2000:]}")
