"""Files of kernels: a user's own, which carry no digest, and the data sets of finished stages, which do."""

import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import load_file, save

from dwp_init.storage import safetensors_bytes
from tests.fuzz.mutations import changed_tensors, damaged, one_damaged
from tests.fuzz.prior_folders import Files, write
from tests.fuzz.target import Differs, Outcome, Target
from training.engine.records import write_done
from training.kernels.kernelset import KernelSet
from training.kernels.read import read_kernels, read_reference

ARRAY, TENSORS = "kernels.npy", "own.safetensors"
Named = tuple[str, bytes]


@cache
def undamaged() -> dict[str, bytes]:
    """One set of kernels in both forms."""
    kernels = torch.randn(24, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    array = io.BytesIO()
    np.save(array, kernels.numpy())
    return {ARRAY: array.getvalue(), TENSORS: save({"kernels": kernels})}


@cache
def data_set() -> dict[str, bytes]:
    """The files of a finished stage that holds kernels."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = [torch.randn(12, 1, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
        KernelSet(*parts, torch.arange(12)).save(folder)
        write_done(folder, {"kernels": {"train": 12}, "kept": 1.0, "source": {"dataset": "none"}})
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_own(case: Named, folder: Path) -> Outcome:
    """Reads a user's file: it is refused, or gives what the library of its format gives, as float32."""
    name, content = case
    path = folder / name
    path.write_bytes(content)
    found = read_kernels(path)
    if name == ARRAY:
        stated = torch.from_numpy(np.load(path, allow_pickle=False))
    else:
        (stated,) = load_file(path).values()
    expected = stated.float().reshape(len(stated), -1, *stated.shape[-2:])
    if not torch.equal(found, expected) or not found.isfinite().all():
        raise Differs(f"kernels {tuple(found.shape)} were read, {tuple(expected.shape)} are stated")
    return "same" if content == undamaged()[name] else "as stated"


def read_data_set(case: Files, folder: Path) -> Outcome:
    """Reads the kernels of a finished stage: they are refused, or as the stage left them."""
    path = write(case, folder) / "kernels.safetensors"
    found = read_reference(path)
    before = write(data_set(), _new(folder))
    if "done.json" not in {file.name for file in path.parent.iterdir()}:
        raise Differs("kernels were read without the summary of their stage")
    if not all(map(torch.equal, found, read_reference(before / "kernels.safetensors"))):
        raise Differs("other kernels were read")
    return "same"


def _new(folder: Path) -> Path:
    (folder / "before").mkdir()
    return folder / "before"


def _own_cases(change: Callable[[str], SearchStrategy[Named]]) -> Callable[[], SearchStrategy[Named]]:
    return lambda: st.sampled_from([ARRAY, TENSORS]).flatmap(change)


def _damaged(name: str) -> SearchStrategy[Named]:
    return damaged(undamaged()[name]).map(lambda content: (name, content))


def _other(name: str) -> SearchStrategy[Named]:
    kernels = {"kernels": torch.randn(24, 1, 3, 3, generator=torch.Generator().manual_seed(0))}

    def packed(tensors: dict[str, torch.Tensor]) -> Named:
        if name == TENSORS or not tensors:
            return TENSORS, safetensors_bytes(tensors)
        array, values = io.BytesIO(), next(iter(tensors.values()))
        np.save(array, values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy())
        return ARRAY, array.getvalue()

    return changed_tensors(kernels).map(packed)


REFUSALS = (ValueError, FileNotFoundError)
TARGETS = (
    Target("kernel files, damaged bytes", _own_cases(_damaged), read_own, REFUSALS, tries=150),
    Target("kernel files, other arrays", _own_cases(_other), read_own, REFUSALS, tries=100),
    Target("kernel data sets, damaged bytes", lambda: one_damaged(data_set()), read_data_set, REFUSALS, tries=100),
)
