"""Checkpoints of others, from which kernels are harvested: safetensors, pickles of torch, and ONNX graphs."""

import contextlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from onnx import ModelProto, helper, numpy_helper
from safetensors.torch import load, load_file, save
from torch import Tensor

from tests.fuzz.mutations import changed_tensors, damaged
from tests.fuzz.target import Differs, Outcome, Target
from training.kernels.groups import Settings
from training.kernels.harvest import harvest
from training.kernels.kernelset import KERNELS, LABELS, PARTS
from training.kernels.read import read_split

FORMATS = ("safetensors", "pt", "onnx")
State = dict[str, Tensor]
Named = tuple[str, bytes]


@cache
def network() -> State:
    """Weights of a stem, a dense and a depthwise convolution, and others."""
    shapes = {"stem.weight": (4, 3, 3, 3), "a.weight": (6, 4, 3, 3), "b.weight": (12, 1, 3, 3), "head.weight": (2, 6)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def packed(state: State, form: str) -> bytes:
    """A checkpoint of a form."""
    if form == "safetensors":
        return save({name: value.contiguous() for name, value in state.items()})
    if form == "pt":
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()
    weights = [numpy_helper.from_array(value.float().numpy(), name) for name, value in state.items()]
    nodes = [helper.make_node("Conv", ["x", name], [f"y of {name}"]) for name in state]
    graph = helper.make_graph(nodes, "net", [], [], initializer=weights)
    return helper.make_model(graph).SerializeToString()


def unpacked(content: bytes, form: str) -> Callable[[str], Tensor]:
    """Reads a checkpoint with the library of its form; returns what gives a tensor by its name."""
    if form == "onnx":
        weights = {weight.name: weight for weight in ModelProto.FromString(content).graph.initializer}
        return lambda name: torch.from_numpy(numpy_helper.to_array(weights[name]).copy())
    state = load(content) if form == "safetensors" else torch.load(io.BytesIO(content), weights_only=True)
    return state.__getitem__


def take(case: Named, folder: Path) -> Outcome:
    """Harvests a file: it is refused, or gives kernels that are those of the file.

    A checkpoint that stores checksums, as those of torch do, is refused if one of them does not hold.
    """
    form, content = case
    found = _harvested(content, form, folder / "damaged")
    (folder / "whole").mkdir()
    expected = _harvested(packed(network(), form), form, folder / "whole")
    same = found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    if not same and form == "pt":
        raise Differs("other kernels were harvested from a file whose checksums do not hold")
    return "same" if same else "as stated"


def take_stated(case: Named, folder: Path) -> Outcome:
    """Harvests a whole file of other tensors: it is refused, or gives kernels that are those of the file."""
    form, content = case
    _harvested(content, form, folder / "other")
    return "same" if content == packed(network(), form) else "as stated"


def _harvested(content: bytes, form: str, folder: Path) -> dict[str, Tensor]:
    """Harvests a file and returns its kernels by folder and part, which are those of the file."""
    folder.mkdir(exist_ok=True)
    (folder / f"net.{form}").write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of progress
        done = harvest([str(folder / f"net.{form}")], folder / "out", Settings())
    stated = unpacked(content, form)
    found: dict[str, Tensor] = {}
    for name in done.folders:
        place = folder / "out" / name
        kernels, labels = vars(read_split(place / KERNELS)), load_file(place / LABELS)
        found |= {f"{name} {part}": values for part, values in kernels.items()}
        for number, tensor in enumerate(json.loads((place / "labels.json").read_bytes())["tensors"]):
            mine = torch.cat([kernels[part][labels[f"{part}.tensor"] == number] for part in PARTS])
            if not _alike(mine, expected_kernels(stated(tensor["tensor"]).double(), tensor["kind"])):
                raise Differs(f"{tensor['tensor']} of {name} has other kernels than the file")
    return found


def expected_kernels(weight: Tensor, kind: str) -> Tensor:
    """The kernels of a weight whose norms are not far below the others', with a root mean square of 1."""
    kernels = weight if kind == "stem" else weight.flatten(0, 1)[:, None]
    norms = kernels.flatten(1).norm(dim=1)
    kept = kernels[(norms >= (0.25 if kind == "dense" else 0.01) * norms.quantile(0.95)) & (norms > 0)]
    return kept / kept.square().mean().sqrt()


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two sets of kernels are the same but for rounding, in any order."""
    if found.shape != expected.shape:
        return False
    apart = (found[:, None] - expected).flatten(2).abs().amax(dim=2)
    return bool(max(apart.amin(dim=0).max(), apart.amin(dim=1).max()) <= 1e-5 * expected.abs().max())


def _damaged_cases() -> SearchStrategy[Named]:
    forms = st.sampled_from(FORMATS)
    return forms.flatmap(lambda form: damaged(packed(network(), form)).map(lambda content: (form, content)))


def _other_cases() -> SearchStrategy[Named]:
    forms = st.sampled_from(FORMATS)
    states = changed_tensors(network()).filter(bool)
    return st.builds(lambda state, form: (form, packed(state, form)), states, forms)


REFUSALS = (ValueError, FileNotFoundError)
TARGETS = (
    Target("checkpoints, damaged bytes", _damaged_cases, take, REFUSALS, names=False, tries=100),
    Target("checkpoints, other tensors", _other_cases, take_stated, REFUSALS, names=False, tries=100),
)
