"""Stages of recipes that nothing disturbs: what they leave, how long they take, and how many calls change files."""

import contextlib
import dataclasses
import hashlib
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
from training.engine.records import DONE, RESULTS, ROOT, check_outputs, file_sha256

LAZY = ("torch._dynamo", "matplotlib.pyplot", "pandas", "timm", "torchvision", "scipy.stats", "zuko", "onnx", "sympy")
LONGEST = 600.0  # seconds of a stage
_RATIOS = {"ratio_median", "ratio_min", "ratio_max"}  # of times
_OF_RUNS = {"init_s", "train_s", "seconds_to_target", "seconds_ratio"}
MEASURED: dict[str, set[str]] = {
    "ApplyCost": {*_RATIOS, "extra_memory_mb"},
    "Benchmark": _OF_RUNS,
    "BenchmarkPlateau": _OF_RUNS,
    "Decoding": {"seconds", "seconds_min", "seconds_max", "over_kaiming", "share_of_peak", "best_share_of_peak"}
    | {"peak_gflop_per_second"},
    "InferenceStep": {"over_standard_normal_median", "min", "max", "extra_memory_mb"},
    "NaturalCosts": {*_RATIOS, "kaiming_ns_per_weight", "natural_ns_per_weight", "extra_memory_mb"}
    | {"import_ms", "first_call_ms", "later_call_ms", "first_call_more_ms", "record/apply_cost_natural.png"},
    "SourceThroughput": {"ensemble_over_one_by_one_median", "min", "max"},
}
"""Keys and columns of times and memory, and pictures of them, by class of stages; all else is the same in every run."""


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

    @property
    def bytes(self) -> int:
        """Of its largest file."""
        return max(map(len, self.results.values()), default=1)

    def differs(self, out: Path) -> list[str]:
        """Says what is not as here, but for what is measured: files, or keys of them; or what the summary denies."""
        found = results(out / self.name.stage)
        names = [
            f"{name}: {', '.join(keys)}" if keys else name
            for name in differing(found, self.results)
            if (keys := self._others(name, found)) is not None
        ]
        if DONE in found and not names:
            try:
                check_outputs(out / self.name.stage)
            except ValueError as error:
                return [str(error)]
        return names

    def _others(self, name: str, found: Mapping[str, bytes]) -> list[str] | None:
        """Returns the keys or columns of a file that differ and are not measured; None if it has no others.

        The list is empty if only one of two folders has the file, or its entries are not the same ones.
        """
        here, there = (entries(name, files[name]) if name in files else [] for files in (self.results, found))
        if [key for key, _ in here] != [key for key, _ in there]:
            return []
        different = {key for (key, value), (_, other) in zip(here, there, strict=True) if value != other}
        return sorted(different - MEASURED.get(self.name.kind, set())) or None

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
    """Runs the stages of recipes, each once, into folders below ``out``, and yields them.

    Finished ones of the same code are reused.
    """
    for module in LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    seen: set[tuple[str, str]] = set()
    code = code_digest()
    for recipe in names:
        folder, stages = out / recipes.load(recipe).FOLDER, recipes.load(recipe).stages(smoke=True)
        for name, stage in stages.items():
            if (folder.name, name) not in seen:
                seen.add((folder.name, name))
                others = [of] if (of := getattr(stage, "of", "")) else []  # which may be on record instead
                needs = tuple(each for each in only(stages, [name, *others]) if each != name)
                yield _measured(Whole(Name(recipe, name, type(stage).__name__), needs, folder), code)


def code_digest() -> str:
    """Returns a digest of the package and the pipeline, without records.

    Unlike the commit, it tells changes that are not committed yet, and stays where only records or pages change.
    """
    digest = hashlib.sha256()
    for path in sorted(path for part in ("dwp_init", "training") for path in (ROOT / part).rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and not str(path).startswith(str(RESULTS)):
            digest.update(f"{path.relative_to(ROOT)} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _measured(whole: Whole, code: str) -> Whole:
    """Runs a stage once, unless it is there with its measures, made by the same code."""
    place, measures = whole.out / whole.name.stage, whole.out / f".{whole.name.stage}.json"
    found = json.loads(measures.read_text()) if measures.exists() and place.exists() else {}
    if found.pop("code", None) != code:
        whole.out.mkdir(parents=True, exist_ok=True)
        measures.unlink(missing_ok=True)
        with whole.place() as scratch:

            def run() -> int:
                times: list[float] = []
                with listening(scratch / place.name, lambda call: times.append(processor_time(os.getpid()))):
                    status = whole.run(scratch)
                (scratch / ".measures").write_text(json.dumps([times[-1] - times[0], len(times)]))
                return status

            _succeed(run)
            found = dict(zip(("seconds", "calls"), json.loads((scratch / ".measures").read_bytes()), strict=True))
            shutil.rmtree(place, ignore_errors=True)
            (scratch / place.name).rename(place)
        measures.write_text(json.dumps({"code": code, **found}))
    return dataclasses.replace(whole, **found)


def _succeed(run: Callable[[], int]) -> None:
    ended = fork(run).wait(LONGEST)
    if ended.status:
        raise RuntimeError(f"a run that nothing disturbs ends with {ended.status}: {ended.said[-2000:]}")
