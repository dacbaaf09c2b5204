"""The spatial convolutions of a checkpoint and their depths, from names, types and shapes of tensors alone."""

import hashlib
import re
from collections.abc import Set
from dataclasses import dataclass

from torch import Tensor

from dwp_init.storage import tensor_bytes
from training.kernels.checkpoints import Checkpoint, Entry, natural

LARGEST = 64  # a larger square is a table or a mask
_FLOATS = ("F64", "F32", "F16", "BF16")
_QUANTIZED = re.compile(r"[IU][48]|F[468](?:_\w+)?")
_STEM = re.compile(r"(?:^|[._])(?:stem|patch_embed|embeddings?|conv_in)\b|^(?:\w+\.)?(?:conv1|features\.0)\b")
_OPTIMIZER = re.compile(r"(?:^|[._])(?:exp_avg(?:_sq)?|momentum_buffer)(?:[._]|$)")
_AVERAGE = re.compile(r"_ema\b|\bema[._]")
_TABLE = re.compile(r"pos_?emb|position", re.IGNORECASE)


@dataclass(frozen=True)
class ConvolutionTensor:
    """A spatial convolution.

    Args:
        checkpoint: Name of its checkpoint.
        name: Name of its tensor.
        kind: One of :data:`dwp_init.convolutions.KINDS`.
        depth: Its place among the spatial convolutions, from 0 for the first to 1 for the last.
        entry: Type and shape of its tensor, ``(out, in/groups, k, k)``.
    """

    checkpoint: str
    name: str
    kind: str
    depth: float
    entry: Entry

    @property
    def group(self) -> str:
        """Name of the kernels of its kind and size, such as ``dense-3x3``; stems of 1 or 4 channels have their own."""
        _, channels, _, size = self.entry.shape
        apart = f"-c{channels}" if self.kind == "stem" and channels != 3 else ""
        return f"{self.kind}-{size}x{size}{apart}"

    def cut(self, weight: Tensor) -> Tensor:
        """Cuts a weight into kernels ``(n, c, k, k)``: a stem's keep their channels, others have one (Eq. 5)."""
        return weight if self.kind == "stem" else weight.flatten(0, 1)[:, None]


@dataclass(frozen=True)
class LeftOut:
    """A tensor that was not taken, or a whole checkpoint where ``tensor`` is empty, and the reason."""

    checkpoint: str
    tensor: str
    reason: str
    detail: str


def read_convolutions(
    checkpoint: Checkpoint, entries: dict[str, Entry]
) -> tuple[list[tuple[ConvolutionTensor, Tensor]], list[LeftOut]]:
    """Reads a checkpoint's spatial convolutions, from the first to the last, as float32.

    A tensor with the values of an earlier one is tied to it and not a layer of its own. One that cannot be used,
    because it is quantized, not finite or zero, still counts as a layer, so that the others keep their depth.

    Args:
        checkpoint: The checkpoint.
        entries: Its tensors.

    Returns:
        The layers with their weights, and the tensors of four dimensions that were left out.
    """
    square: dict[str, Entry] = {}
    left_out: list[LeftOut] = []

    def leave(name: str, reason: str, detail: str = "") -> None:
        described = f"{entries[name].dtype} {entries[name].shape}"
        left_out.append(LeftOut(checkpoint.name, name, reason, detail or described))

    for name in sorted(entries, key=natural):
        if len(entries[name].shape) == 4:
            if reason := _why_no_layer(name, entries[name]) or _why_no_weight(name, entries.keys()):
                leave(name, reason)
            else:
                square[name] = entries[name]
    stem = find_stem(square)
    places = sorted(square, key=lambda name: name != stem)
    whole = {name: square[name] for name in places if square[name].dtype in _FLOATS}
    for name in places:
        if name not in whole:
            leave(name, "quantized")
    weights: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    for name, raw in checkpoint.load(whole):
        weight = raw.float()
        if reason := _why_unusable(weight):
            leave(name, reason)
        elif (twin := first.setdefault(_digest(raw), name)) != name:
            leave(name, "tied to another tensor", twin)
            places.remove(name)
        else:
            weights[name] = weight
    layers = []
    for place, name in enumerate(places):
        if name in weights:
            out, channels, *_ = square[name].shape
            kind = "stem" if name == stem else "depthwise" if channels == 1 < out else "dense"
            depth = place / max(len(places) - 1, 1)
            layers.append((ConvolutionTensor(checkpoint.name, name, kind, depth, square[name]), weights[name]))
    return layers, left_out


def find_stem(entries: dict[str, Entry]) -> str | None:
    """Finds the layer that reads the image, of 3, 1 or 4 channels, among spatial convolutions in their order.

    Depthwise convolutions also have one input channel, and groups may have 4. So the first layer with 3 channels is
    the stem, and one with the name of a stem comes before others. If there is none, the candidate is the first with
    such a name, or else the first of all: it is the stem if it has 4 channels, or 1 and such a name, or 1 and no other
    layer has 1.
    """
    named = [name for name in entries if _STEM.search(name)]
    channels = {name: entry.shape[1] for name, entry in entries.items()}
    for name in [*named, *entries]:
        if channels[name] == 3:
            return name
    for name in [*named, *entries][:1]:
        if channels[name] == 4 or (channels[name] == 1 and (named or list(channels.values()).count(1) == 1)):
            return name
    return None


def _why_no_layer(name: str, entry: Entry) -> str:
    out, channels, height, width = entry.shape
    if entry.dtype not in _FLOATS and not _QUANTIZED.fullmatch(entry.dtype):
        return "no floating-point numbers"
    if 0 in entry.shape:
        return "empty"
    if height != width:
        return "not square"
    if height == 1:
        return "1×1"
    if height > LARGEST:
        return f"larger than {LARGEST}×{LARGEST}"
    if out == 1 and _TABLE.search(name):
        return "positions, by its name"
    if out == channels < 16 <= height:
        return "channels last, by its shape (k, k, in, out)"
    return ""


def _why_no_weight(name: str, entries: Set[str]) -> str:
    if _OPTIMIZER.search(name):
        return "an optimizer's state, by its name"
    return "an average of another tensor, by its name" if _AVERAGE.sub("", name) in entries - {name} else ""


def _why_unusable(weight: Tensor) -> str:
    if not weight.isfinite().all():
        return "NaN or, in float32, infinity"
    return "" if weight.any() else "all zeros"


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor)).hexdigest()
