"""Folders of runs, finished and interrupted ones, of which a file is damaged before the same command runs again."""

import contextlib
import io
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save_file

from tests.fuzz.calls import listening
from tests.fuzz.folders import contents, differing, restore, results
from tests.fuzz.mutations import one_damaged
from tests.fuzz.target import Differs, Outcome, Target
from training.engine.run import run_stages
from training.engine.stage import Context, Stage, StageChangedError
from training.fits.vae import FitVAE
from training.kernels.read import KernelFile
from training.kernels.sources import Sources

Case = Mapping[str, bytes | None]
_PLACE = tempfile.TemporaryDirectory(prefix="dwp-init-fuzz-")  # of the kernels, whose path is a setting


@cache
def stages() -> dict[str, Stage]:
    """A fit by gradient, and networks that are trained, both as small as they can be."""
    path = Path(_PLACE.name) / "own.safetensors"
    save_file({"kernels": torch.randn(40, 1, 3, 3, generator=torch.Generator().manual_seed(0))}, path)
    fit = FitVAE(latent_dim=1, hidden=2, epochs=3, batch_size=32, evaluate_every=1)
    sources = Sources(filters=(1, 1), networks=2, epochs=2)
    return {"kernels": KernelFile.of(path), "fit": fit, "sources": sources}


def run(out: Path) -> None:
    """Runs the stages, without a word."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        run_stages(stages(), Context(out=out, smoke=True))


@cache
def undisturbed() -> dict[str, bytes]:
    """The results of a run that nothing disturbs."""
    with tempfile.TemporaryDirectory() as scratch:
        run(Path(scratch))
        return results(Path(scratch))


@cache
def states() -> tuple[dict[str, bytes], ...]:
    """What there is before each call that gives a file its name; the last state is that of a finished run."""
    found: list[dict[str, bytes]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with listening(folder, lambda call: found.append(contents(folder)) if call.kind == "rename" else None):
            run(folder)
        return (*found[1:], contents(folder))


def resume(case: Case, folder: Path) -> Outcome:
    """Runs the stages in a damaged folder: an error says what to remove, or the results are those of whole files.

    Once that is removed, the same command gives them.
    """
    restore(case, folder)
    try:
        run(folder)
    except REFUSALS as error:
        place = to_remove(str(error))
        if place is None or not place.is_relative_to(folder):
            raise Differs(f"the error does not say what to remove: {error}") from error
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        try:
            run(folder)
        except REFUSALS as again:
            raise Differs(f"after {place} was removed as the error says, {again}") from again
        if different := differing(results(folder), undisturbed()):
            raise Differs(f"after {place} was removed, other {', '.join(different)} are left") from error
        raise
    if different := differing(results(folder), undisturbed()):
        raise Differs(f"other {', '.join(different)}")
    return "same"


def to_remove(message: str) -> Path | None:
    """Returns the place that an error says to remove: by its path, or as the one that it begins with."""
    named = re.search(r"[Rr]emove (?:(?P<place>/\S+?)[;,.]?(?: |$)|(?:it|that folder)\b)", message)
    first = re.match(r"(/\S+)", message)
    found = named and (named["place"] or (first and first[1]))
    return Path(found) if found else None


def _cases() -> SearchStrategy[Case]:
    return st.sampled_from(states()).flatmap(one_damaged)


REFUSALS = (ValueError, StageChangedError)
TARGETS = (Target("run folders, damaged bytes", _cases, resume, REFUSALS, seconds=20, tries=40),)
