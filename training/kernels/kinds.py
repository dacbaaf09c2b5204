"""The kinds of a checkpoint's convolutions: from its format, or from names and shapes alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from training.kernels.formats.base import Entry

LAYER_KINDS = ("stem", "dense", "depthwise", "transposed", "transposed-depthwise")
BANDS = 13
"""Largest number of channels of an image: the bands of Sentinel-2. Inside networks, layers have 16 inputs and more."""

_STEM = re.compile(r"(?:^|[._])(?:stem|patch_embed|embeddings?|conv_in)\b|^(?:\w+\.)?(?:conv1|features\.0)\b")
_DEPTHWISE = re.compile(r"depthwise|(?<![a-z])dw|dw(?![a-z])", re.IGNORECASE)
_TRANSPOSED = re.compile(r"transpose|deconv|(?<![a-z])convt(?![a-z])", re.IGNORECASE)
_WEIGHT = re.compile(r"(?:weight|weight_v|kernel|original1)$|conv", re.IGNORECASE)


def is_weight(name: str) -> bool:
    """Whether a tensor has the name of a layer's weight; tables of positions and tokens have other names."""
    return bool(_WEIGHT.search(name))


def find_kinds(layers: Iterable[str], entries: Mapping[str, Entry], transposed: Sequence[str] = ()) -> dict[str, str]:
    """Says of which of :data:`LAYER_KINDS` each spatial convolution is.

    What the format says of operator and groups holds, and then the patterns. Where none of them tells, a layer is

    - ``transposed`` if what follows has as many channels as its second dimension, and not as its first: its bias, or
      without one the vector of the next module of a sequence, such as a batch norm's. If neither tells, its name does;
    - ``stem`` if :func:`find_stem` says so;
    - ``depthwise`` if it has one input channel in a group and several outputs.

    Args:
        layers: Names of the spatial convolutions, in order.
        entries: All tensors of the checkpoint, in order.
        transposed: Patterns of the names of transposed convolutions, as in ``fnmatch``.
    """
    layers, names = list(layers), list(entries)
    places = {name: place for place, name in enumerate(names)}
    turned = {
        name
        for name in layers
        if any(fnmatchcase(name, pattern) for pattern in transposed) or _is_transposed(names[places[name] :], entries)
    }
    pointwise = any(entry.shape[1:] == (3, 1, 1) for entry in entries.values())
    stem = find_stem({name: entries[name] for name in layers if name not in turned}, pointwise)

    def kind(name: str) -> str:
        if name in turned:
            known = entries[name].groups is not None or _DEPTHWISE.search(name)
            return "transposed-depthwise" if known and _is_depthwise(entries[name]) else "transposed"
        return "stem" if name == stem else "depthwise" if _is_depthwise(entries[name]) else "dense"

    return {name: kind(name) for name in layers}


def find_stem(layers: Mapping[str, Entry], pointwise: bool = False) -> str | None:
    """Finds the layer that reads the image, of at most :data:`BANDS` channels and with more outputs than channels.

    The first layer with 3 channels is the stem, and one with the name of a stem comes before others. If there is none,
    it is the first with such a name, or else the only layer with one channel that is not named depthwise, or else, if
    no layer has such a name, the first of all. If a pointwise layer reads the image, one with one channel is depthwise.

    Args:
        layers: The plain spatial convolutions of a checkpoint, in order.
        pointwise: Whether a 1×1 convolution reads the image, because it has 3 input channels.
    """
    channels = {
        name: entry.shape[1]
        for name, entry in layers.items()
        if entry.groups in (None, 1) and entry.shape[1] <= BANDS and (entry.shape[1] < entry.shape[0])
    }
    named = [name for name in layers if _STEM.search(name)]
    for name in [*named, *layers]:
        if channels.get(name) == 3:
            return name
    if named and named[0] in channels:
        return named[0]
    grey = [name for name, count in channels.items() if count == 1 and not _DEPTHWISE.search(name)]
    first = next(iter(layers), "")
    if channels.get(first) == 1 and layers[first].groups == 1:
        return first
    if grey and not pointwise and (len(grey) == 1 or first == grey[0]):
        return grey[0]
    return first if channels.get(first, 1) > 1 and not named else None


def _is_transposed(names: Sequence[str], entries: Mapping[str, Entry]) -> bool:
    """Whether the first of the names is a transposed convolution; the others are what follows, in order."""
    entry = entries[names[0]]
    if entry.layout:
        return entry.layout == "transposed"
    first, second, *_ = entry.shape
    following = _channels_after(names, entries)
    if first != second and following in (first, second):
        return following == second
    return bool(_TRANSPOSED.search(names[0]))


def _channels_after(names: Sequence[str], entries: Mapping[str, Entry]) -> int | None:
    """Returns the length of the bias of the first module, or else of the first tensor of the module behind it."""
    module = names[0].rpartition(".")[0].removesuffix(".parametrizations.weight")
    bias = entries.get(f"{module}.bias" if module else "bias")
    if bias is not None:
        return bias.shape[0] if bias.shape else None
    behind = next((name for name in names if name.rpartition(".")[0] != module), "")
    outer, _, place = module.rpartition(".")
    sequence = place.isdecimal() and behind.rpartition(".")[0] == f"{outer}.{int(place) + 1}".lstrip(".")
    return entries[behind].shape[0] if sequence and len(entries[behind].shape) == 1 else None


def _is_depthwise(entry: Entry) -> bool:
    out, inputs, *_ = entry.shape
    return inputs == 1 and (out > 1 if entry.groups is None else entry.groups > 1)
