"""The user's model for the command line: loads it by name, and saves its ``state_dict``."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from dwp_init.storage import safetensors_bytes, write_bytes

_Result = TypeVar("_Result")


def load_model(spec: str) -> nn.Module:
    """Imports and calls a function, class or model.

    Args:
        spec: ``MODULE:FACTORY``, such as ``my.nets:make_net``; modules of the current folder are found.

    Raises:
        ValueError: ``spec`` is malformed, there is no such factory, or the user's code fails.
        TypeError: The result is not a ``torch.nn.Module``.
    """
    module_name, _, factory_name = spec.partition(":")
    names = [*module_name.split("."), *factory_name.split(".")]
    if not all(name.isidentifier() for name in names) or module_name.endswith(".py"):
        raise ValueError(f"the model must be MODULE:FACTORY, such as my.nets:make_net, without .py; got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: object = _call(f"importing {module_name!r}", importlib.import_module, module_name)
    for name in factory_name.split("."):
        if not hasattr(found, name):
            there = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key, None))]
            raise ValueError(f"{module_name!r} has no {factory_name!r}; it has {', '.join(there) or 'no function'}")
        found = getattr(found, name)
    if not isinstance(found, nn.Module) and callable(found):
        found = _call(f"calling {spec}", found)
    if not isinstance(found, nn.Module):
        raise TypeError(
            f"{spec} gives a {type(found).__name__}, expected a torch.nn.Module or a function that makes one"
        )
    return found


def save_state(model: nn.Module, path: Path) -> None:
    """Saves a model's ``state_dict`` as safetensors, whole or not at all.

    Of tensors that are the same, only the first name is saved, as by ``safetensors.torch.save_model``.

    Raises:
        ValueError: An entry is not a tensor that can be saved, or the user's code fails.
    """
    write_bytes(path, _packed(_call("reading the model's state_dict", model.state_dict)))


def _packed(state: Mapping[str, Tensor]) -> bytes:
    kept: dict[tuple[object, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in sorted(state.items()):
        key: tuple[object, ...] = (name,)
        if isinstance(tensor, Tensor) and tensor.numel() and not tensor.is_meta:
            key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if kept.setdefault(key, name) == name:
            tensors[name] = tensor
        else:
            aliases[name] = kept[key]
    return safetensors_bytes(tensors, aliases)


def _call(doing: str, function: Callable[..., _Result], *arguments: str) -> _Result:
    """Calls the user's code; the error for an exception there keeps its kind, its message and its place."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({frame.filename}, line {frame.lineno})"
        where = "" if frame.filename in (__file__, importlib.__file__) or "<frozen" in frame.filename else place
        raise ValueError(f"{doing} failed: {type(error).__name__}: {error}{where}") from error
