"""The user's model for the command line: loads it by name, and saves its ``state_dict``."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from dwp_init.storage import safetensors_bytes, write_bytes
from dwp_init.text import few

_Result = TypeVar("_Result")


class _Factory(NamedTuple):
    """A factory, ``MODULE:FACTORY`` or ``MODULE:FACTORY(ARGUMENTS)``, read from a command line."""

    module: str
    factory: str
    arguments: list[Any]
    options: dict[str, Any]


def load_model(spec: str) -> nn.Module:
    """Imports and calls a function, class or model.

    Args:
        spec: ``MODULE:FACTORY``, such as ``my.nets:make_net``, with or without arguments that are Python literals, such
            as ``my.nets:make_net(10, width=32)``; modules of the current folder come first. Or ``timm:NAME`` or
            ``torchvision:NAME`` for an architecture of these packages, untrained unless the arguments say otherwise;
            the current folder is not searched for these.

    Raises:
        ValueError: ``spec`` is malformed, there is no such factory or architecture, or the user's code fails.
        TypeError: The result is not a ``torch.nn.Module``.
    """
    call = _parsed(spec)
    if call.module not in _ARCHITECTURES and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _found(call)
    if not isinstance(found, nn.Module) and callable(found):
        found = _call(f"calling {spec}", found, *call.arguments, **call.options)
    elif call.arguments or call.options:
        raise ValueError(f"{call.module}:{call.factory} is a {type(found).__name__}, which takes no arguments")
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


def _parsed(spec: str) -> _Factory:
    """Reads a command line's model; its arguments are literals, and nothing is evaluated."""
    module, _, rest = spec.partition(":")
    factory, has_arguments, _ = rest.partition("(")
    names = [*module.split("."), *factory.split(".")]
    if not all(name.isidentifier() for name in names) or module.endswith(".py"):
        raise ValueError(
            "the model must be MODULE:FACTORY, such as my.nets:make_net, without .py, or timm:NAME or "
            f"torchvision:NAME; got {spec!r}"
        )
    if not has_arguments:
        return _Factory(module, factory, [], {})
    try:
        call = ast.parse(rest, mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != factory:
            raise ValueError("it is not one call")
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        if len(options) < len(call.keywords):
            raise ValueError("** is not a literal")
        return _Factory(module, factory, list(map(ast.literal_eval, call.args)), options)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"the arguments must be Python literals, such as {factory}(10, width=32, norm='batch'); got {rest!r}"
        ) from error


def _found(call: _Factory) -> object:
    """Imports the module and returns what the name of the factory stands for."""
    if call.module in _ARCHITECTURES and importlib.util.find_spec(call.module) is None:
        raise ValueError(f"{call.module}:{call.factory} needs the package {call.module}: pip install {call.module}")
    found: object = _call(f"importing {call.module!r}", importlib.import_module, call.module)
    if call.module in _ARCHITECTURES and not hasattr(found, call.factory.partition(".")[0]):
        return _ARCHITECTURES[call.module](call.factory)
    for name in call.factory.split("."):
        if not hasattr(found, name):
            there = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key, None))]
            raise ValueError(f"{call.module!r} has no {call.factory!r}; {_near(name, there, 'it has')}")
        found = getattr(found, name)
    return found


def _timm(name: str) -> Callable[..., object]:
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        raise ValueError(f"timm has no {name!r}; {_near(name, timm.list_models(), 'it has')}")
    return partial(timm.create_model, name)


def _torchvision(name: str) -> Callable[..., object]:
    models = importlib.import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise ValueError(f"torchvision has no {name!r}; {_near(name, known, 'it has')}")
    builder: Callable[..., object] = models.get_model_builder(name)
    names = ("weights", "weights_backbone")  # of which detectors would download the second
    return partial(builder, **{key: None for key in names if key in inspect.signature(builder).parameters})


_ARCHITECTURES: dict[str, Callable[[str], Callable[..., object]]] = {"timm": _timm, "torchvision": _torchvision}


def _near(name: str, names: list[str], start: str) -> str:
    """Says which name may have been meant, or names the first few."""
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"{start} {few(names, 6) or 'no function'}"


def _call(doing: str, function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """Calls the user's code; the error for an exception there keeps its kind, its message and its place."""
    try:
        return function(*arguments, **options)
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({frame.filename}, line {frame.lineno})"
        where = "" if frame.filename in (__file__, importlib.__file__) or "<frozen" in frame.filename else place
        raise ValueError(f"{doing} failed: {type(error).__name__}: {error}{where}") from error
