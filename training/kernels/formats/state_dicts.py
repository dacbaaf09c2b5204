"""State dicts as ``torch.save`` writes them: pickles, read by the restricted reader of torch, which runs no code."""

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.records import check_archive
from training.kernels.formats.base import Entry, Format, dtype_name

OLDEST_TORCH = "2.6"  # before it, weights_only could be made to run code (CVE-2025-32434)
DEEPEST, MOST_ENTRIES = 32, 2**21  # of dicts in each other, and of their entries, all together
AVERAGES = ("params_ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema")
AVERAGED = ("state_dict", "model_state_dict", "model", "params", "net", "network", "weights")


OPTIMIZER = "an optimizer's state"

_Found = tuple[Tensor, bool]  # and whether it is an optimizer's


class StateDictFormat(Format):
    """Dicts of tensors, also within other dicts.

    A tensor's name is the path of keys to it, such as ``state_dict.stem.weight``. Of the outermost dict all keys are
    read but those that begin with ``optim``, and those that hold a network twice: of the keys of :data:`AVERAGES` the
    one with most layers is read, and no other of them or of :data:`AVERAGED` whose layers it has, by their shapes. If
    it lacks some that another one has, it is left out instead. A dict with ``state`` and ``param_groups``, the file's
    own too, is an optimizer's, whose tensors are listed as unused. The checksums that ``torch.save`` writes must hold.
    """

    suffixes = (".pth", ".pt", ".bin", ".ckpt")
    ordered = True

    def entries(self, path: Path) -> dict[str, Entry]:
        return {
            name: Entry(_dtype(value), tuple(value.shape), path, unused=OPTIMIZER if optimizer else "")
            for name, (value, optimizer) in _read(path).items()
        }

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[str], Tensor]]:
        found = _read(path)
        yield lambda name: found[name][0]


def _read(path: Path) -> dict[str, _Found]:
    if torch.__version__ < OLDEST_TORCH:
        raise ValueError(
            f"{path} is a pickle, which torch {torch.__version__} cannot read safely; install torch {OLDEST_TORCH} or "
            "newer, or convert the file to safetensors"
        )
    try:
        archive = zipfile.is_zipfile(path)
        if archive:
            check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storages and TorchScript, on which nobody can act
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # the reader meets arbitrary bytes, and raises what they lead to
        called = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f"it holds a {called[1]}" if called else next(iter(str(error).splitlines()), repr(error))
        raise ValueError(
            f"{path} cannot be read without running code, or is broken ({why}); save its state dict alone, with "
            "safetensors.torch.save_file or torch.save, where you trust it"
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds {type(found).__name__}, not a state dict; save model.state_dict() instead")
    twins = _twins(path, found) | {key for key in found if str(key).startswith("optim")}
    kept = {key: value for key, value in found.items() if isinstance(value, Tensor) or key not in twins}
    return dict(_tensors(path, kept))


def _twins(path: Path, found: Mapping[Any, Any]) -> set[Any]:
    """Returns the keys of networks that are read under another key."""
    tensors = {key: dict(_tensors(path, {key: found.get(key)})) for key in (*AVERAGES, *AVERAGED)}
    layers = {
        key: Counter(tuple(tensor.shape) for tensor, _ in each.values() if tensor.dim() > 2)
        for key, each in tensors.items()
        if each
    }
    average = max((key for key in AVERAGES if key in layers), key=lambda key: layers[key].total(), default=None)
    if average is None:
        return set()
    others = layers.keys() - {average}
    held = {key for key in others if layers[key] <= layers[average]}
    return held | {average} if any(layers[average] < layers[key] for key in others) else held


def _tensors(
    path: Path,
    values: Mapping[Any, Any],
    prefix: str = "",
    depth: int = 0,
    left: Iterator[int] | None = None,
    optimizer: bool = False,
) -> Iterator[tuple[str, _Found]]:
    """Walks through dicts in dicts; a dict may be in several others, so that a small file could hold a huge tree."""
    left = left or iter(range(MOST_ENTRIES))
    optimizer = optimizer or {"state", "param_groups"} <= values.keys()
    for key, value in values.items():
        if depth == DEEPEST or next(left, None) is None:
            raise ValueError(
                f"{path} has more than {MOST_ENTRIES:,} entries, or dicts that are {DEEPEST} deep in each other or "
                "hold themselves; save model.state_dict() instead"
            )
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", (value.detach(), optimizer)
        elif isinstance(value, Mapping):
            yield from _tensors(path, value, f"{prefix}{key}.", depth + 1, left, optimizer)


def _dtype(tensor: Tensor) -> str:
    """Returns the name of a dtype; of a tensor without values of its own, what it is instead."""
    if tensor.is_meta:
        return "META"
    return dtype_name(str(tensor.dtype if tensor.layout is torch.strided else tensor.layout))
