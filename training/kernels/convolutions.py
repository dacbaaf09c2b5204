"""The spatial convolutions of a checkpoint and their depths, from names, types and shapes of tensors alone."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dwp_init.storage import tensor_bytes
from training.kernels.checkpoints import Checkpoint, natural
from training.kernels.formats.base import Entry
from training.kernels.kinds import find_kinds, is_weight
from training.kernels.weight_norm import are_magnitudes, magnitudes_of, normed_weight

LARGEST = 64  # what is larger is a table or a mask
_FLOATS = ("F64", "F32", "F16", "BF16")
_QUANTIZED = re.compile(r"[IU][48]|F[468](?:_\w+)?")
_OPTIMIZER = re.compile(r"(?:^|[._])(?:exp_avg(?:_sqs?)?|square_avg|grad_avg|acc_delta|momentum_buffer)(?:[._]|$)")
_AVERAGE = re.compile(r"_ema\b|\bema[._]")
_AVERAGED = "online_model"  # the package ema-pytorch keeps it next to its average, ema_model
_TIED = "tied to another tensor"
_TABLE = re.compile(r"pos_?emb|position|pos$", re.IGNORECASE)


@dataclass(frozen=True)
class ConvolutionTensor:
    """A spatial convolution.

    Args:
        checkpoint: Name of its checkpoint.
        name: Name of its tensor.
        kind: One of :data:`training.kernels.kinds.LAYER_KINDS`.
        depth: Its place among the spatial convolutions, from 0 for the first to 1 for the last.
        entry: Type and shape of its tensor, ``(out, in/groups, *size)``, or transposed ``(in, out/groups, *size)``.
    """

    checkpoint: str
    name: str
    kind: str
    depth: float
    entry: Entry

    @property
    def size(self) -> tuple[int, ...]:
        """Size of its kernels, such as ``(k, k)``."""
        return self.entry.shape[2:]

    @property
    def group(self) -> str:
        """Name of its kind and size: ``dense-3x3``, ``dense-5`` in 1-D, or ``stem-3x3-c4`` if not of 3 channels."""
        channels = self.entry.shape[1]
        apart = f"-c{channels}" if self.kind == "stem" and channels != 3 else ""
        return f"{self.kind}-{'x'.join(map(str, self.size))}{apart}"

    def cut(self, weight: Tensor) -> Tensor:
        """Cuts a weight into kernels ``(n, c, *size)``: a stem's keep their channels, others have one (Eq. 5)."""
        return weight if self.kind == "stem" else weight.flatten(0, 1)[:, None]


@dataclass(frozen=True)
class LeftOut:
    """A tensor that was not taken, or a whole checkpoint where ``tensor`` is empty, and the reason."""

    checkpoint: str
    tensor: str
    reason: str
    detail: str


def read_convolutions(
    checkpoint: Checkpoint, entries: dict[str, Entry], transposed: Sequence[str] = ()
) -> tuple[list[tuple[ConvolutionTensor, Tensor]], list[LeftOut]]:
    """Reads a checkpoint's spatial convolutions in one, two and three dimensions, from the first to the last.

    A tensor with the values of an earlier one is tied to it and not a layer of its own. One that cannot be used,
    because it is quantized, not finite or zero, still counts as a layer, so that the others keep their depth. The
    weight of a weight-normed layer is computed from its directions, whose name it takes, and its magnitudes.

    Args:
        checkpoint: The checkpoint.
        entries: Its tensors.
        transposed: Patterns of the names of transposed convolutions, see :func:`training.kernels.kinds.find_kinds`.

    Returns:
        The layers with their weights as float32, and the tensors that were left out: those of four dimensions, and of
        three and five if they have the name of a weight.
    """
    if not checkpoint.ordered:
        entries = {name: entries[name] for name in sorted(entries, key=natural)}
    unused = {name: entry for name, entry in entries.items() if entry.unused and _may_convolve(name, entry)}
    entries = {name: entry for name, entry in entries.items() if not entry.unused}
    magnitudes = {magnitudes_of(name) for name in entries}
    candidates = [name for name in entries if name not in magnitudes and _may_convolve(name, entries[name])]
    reasons = {name: _why_no_layer(name, entries) for name in candidates}
    left_out = [LeftOut(checkpoint.name, name, entry.unused, _described(entry)) for name, entry in unused.items()]
    left_out += [
        LeftOut(checkpoint.name, name, reason, _described(entries[name])) for name, reason in reasons.items() if reason
    ]
    kinds = find_kinds([name for name, reason in reasons.items() if not reason], entries, transposed)
    places = sorted(kinds, key=lambda name: kinds[name] != "stem")
    weights, unusable = _load(checkpoint, places, entries)
    left_out += unusable
    tied = {item.tensor for item in unusable if item.reason == _TIED}
    places = [name for name in places if name not in tied]
    layers = [
        ConvolutionTensor(checkpoint.name, name, kinds[name], place / max(len(places) - 1, 1), entries[name])
        for place, name in enumerate(places)
    ]
    return [(layer, weights[layer.name]) for layer in layers if layer.name in weights], left_out


def _load(
    checkpoint: Checkpoint, places: Sequence[str], entries: dict[str, Entry]
) -> tuple[dict[str, Tensor], list[LeftOut]]:
    """Loads weights as float32; returns those that can be used, and the others with the reason."""
    floats = {name: entries[name] for name in places if entries[name].dtype in _FLOATS}
    left_out = [
        LeftOut(checkpoint.name, name, "quantized", _described(entries[name])) for name in places if name not in floats
    ]
    normed = {name: found for name in floats if (found := magnitudes_of(name))}
    magnitudes = dict(checkpoint.load({found: entries[found] for found in normed.values()}))
    weights: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    for name, stored in checkpoint.load(floats):
        raw = normed_weight(stored, magnitudes[normed[name]]) if name in normed else stored
        weight = raw.float()
        if reason := _why_unusable(weight):
            left_out.append(LeftOut(checkpoint.name, name, reason, _described(entries[name])))
        elif (twin := first.setdefault(_digest(raw), name)) != name:
            left_out.append(LeftOut(checkpoint.name, name, _TIED, twin))
        else:
            weights[name] = weight
    return weights, left_out


def _described(entry: Entry) -> str:
    return f"{entry.dtype} {entry.shape}"


def _may_convolve(name: str, entry: Entry) -> bool:
    dimensions = len(entry.shape)
    return dimensions == 4 or (dimensions in (3, 5) and (bool(entry.layout) or is_weight(name)))


def _why_no_layer(name: str, entries: Mapping[str, Entry]) -> str:
    entry = entries[name]
    return _why_no_size(entry) or _why_no_norm(name, entries) or ("" if entry.layout else _why_no_weight(name, entries))


def _why_no_size(entry: Entry) -> str:
    size = entry.shape[2:]
    if entry.dtype not in _FLOATS and not _QUANTIZED.fullmatch(entry.dtype):
        return "no floating-point numbers"
    if 0 in entry.shape:
        return "empty"
    if max(size) == 1:
        return "×".join("1" * len(size))
    return f"larger than {LARGEST}" if max(size) > LARGEST else ""


def _why_no_norm(name: str, entries: Mapping[str, Entry]) -> str:
    if not (magnitudes := magnitudes_of(name)):
        return ""
    found = entries.get(magnitudes)
    fitting = found is not None and found.dtype in _FLOATS and are_magnitudes(found.shape, entries[name].shape)
    return "" if fitting else "directions of a weight norm without its magnitudes"


def _why_no_weight(name: str, entries: Mapping[str, Entry]) -> str:
    shape = entries[name].shape
    size = shape[2:]
    if any(entry.layout for entry in entries.values()):
        return "no convolution's, by its format"
    if shape[0] == 1 and _TABLE.search(name) and not name.endswith("weight"):
        return "positions, by its name"
    if max(shape[: len(size)]) < 16 <= max(shape[-min(len(size), 2) :]):
        return "channels last, by its shape (*size, in, out)"
    if len(set(size)) > 1 and not is_weight(name):
        return "a table, by its name"
    if _OPTIMIZER.search(name):
        return "an optimizer's state, by its name"
    if _AVERAGED in name and name.replace(_AVERAGED, "ema_model") in entries:
        return "averaged in another tensor, by its name"
    return "an average of another tensor, by its name" if _AVERAGE.sub("", name) in entries.keys() - {name} else ""


def _why_unusable(weight: Tensor) -> str:
    if not weight.isfinite().all():
        return "NaN or, in float32, infinity"
    return "" if weight.any() else "all zeros"


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor)).hexdigest()
