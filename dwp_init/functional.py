"""Functions and methods of tensors that do what modules of ``torch.nn`` do, by name."""

import ast
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn


class Known(NamedTuple):
    """What is known of a function that takes a tensor first.

    Attributes:
        module: Makes the module that does the same, from options by keyword.
        options: Names of the other arguments, in the order of the function.
        used: Which of them the module needs.
        sized: Whether these may be sizes along each axis, or ``None``.
    """

    module: Callable[..., nn.Module]
    options: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()
    sized: bool = False

    def made(self, given: Mapping[str, Any]) -> nn.Module | None:
        """Returns the module that does the same with these options; ``None`` if the function does not take them."""
        try:
            return self.module(**given)
        except (TypeError, ValueError):
            return None


class Changed(nn.Module):
    """Stands for what changes the numbers of a tensor, each in its place."""


class Moved(nn.Module):
    """Stands for what moves, joins or parts the numbers of a tensor, so that it may have other axes."""


def _known(module: Callable[..., nn.Module], *used: str, ignored: tuple[str, ...] = ("inplace",)) -> Known:
    return Known(module, (*used, *ignored), frozenset(used))


def _pools(rank: int) -> dict[str, Known]:
    kinds = {
        "max_pool": ("MaxPool", ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
        "avg_pool": ("AvgPool", ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
        "adaptive_max_pool": ("AdaptiveMaxPool", ("output_size",)),
        "adaptive_avg_pool": ("AdaptiveAvgPool", ("output_size",)),
    }
    return {
        f"{name}{rank}d": Known(getattr(nn, f"{kind}{rank}d"), options, frozenset(options), sized=True)
        for name, (kind, options) in kinds.items()
    }


_BARE = (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid)
_DROPOUTS = {"dropout": nn.Dropout, "dropout1d": nn.Dropout1d, "dropout2d": nn.Dropout2d, "dropout3d": nn.Dropout3d}
KNOWN: dict[str, Known] = {
    **{each.__name__.lower(): _known(each) for each in _BARE},
    **{name: _known(each, ignored=("p", "training", "inplace")) for name, each in _DROPOUTS.items()},
    **{name: _known(each, ignored=()) for name, each in (("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh))},
    **{name: _known(each, "alpha") for name, each in (("elu", nn.ELU), ("celu", nn.CELU))},
    "relu_": _known(nn.ReLU, ignored=()),
    "leaky_relu": _known(nn.LeakyReLU, "negative_slope"),
    "gelu": _known(nn.GELU, ignored=("approximate",)),
    "softplus": _known(nn.Softplus, "beta", "threshold", ignored=()),
    **_pools(1),
    **_pools(2),
    **_pools(3),
}
"""What modules do too."""

SAME = {"contiguous", "clone", "float", "half", "bfloat16", "double", "cpu", "cuda"}
"""What returns the same numbers."""

CHANGING = {"to", "softmax", "log_softmax", "logsigmoid", "normalize", "squeeze"}
"""What a :class:`Changed` stands for; ``squeeze`` leaves axes out, but those of one number."""

MOVING = {
    *("view", "reshape", "flatten", "unflatten", "unsqueeze", "permute", "transpose", "movedim", "mean", "sum", "amax")
}
"""What a :class:`Moved` stands for, but where a module does the same, see :func:`rearranged`."""

NAMESPACES: tuple[object, ...] = (torch, F, nn)


def _is_of_torch(found: object) -> bool:
    """Whether a function is one of torch, not one that was put in its place."""
    return not isinstance(found, FunctionType) or found.__module__.startswith("torch.")


NAMES: dict[int, str] = {
    id(found): name
    for space in (torch, F)
    for name in (*KNOWN, *CHANGING, *MOVING)
    if (found := vars(space).get(name)) is not None and _is_of_torch(found)
}
"""The names of those that are functions of torch, by ``id``."""


def literal(expression: ast.expr) -> object:
    """Returns the value of a literal; of what is none, the expression."""
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return expression


def rearranged(name: str, arguments: Sequence[ast.expr], options: Sequence[ast.keyword]) -> nn.Module:
    """Returns the module that does what a function of :data:`MOVING` does, if it leaves no image.

    These are ``flatten(1)``, ``view(-1, 400)`` and whatever has one or two axes, and the mean or maximum over pixels.
    """
    if not {each.arg for each in options} <= {"dim", "start_dim", "keepdim"}:
        return Moved()
    given = [*arguments, *(each.value for each in options if each.arg != "keepdim")]
    match name, [literal(each) for each in given]:
        case "flatten", [1]:
            return nn.Flatten()
        case "flatten", []:
            return nn.Flatten(0)
        case "view" | "reshape", sizes if _axes(sizes) in (1, 2):
            return nn.Flatten()
        case "mean", [[2, 3] | [3, 2] | [-2, -1] | [-1, -2], *_]:
            return nn.AdaptiveAvgPool2d(1)
        case "amax", [[2, 3] | [3, 2] | [-2, -1] | [-1, -2], *_]:
            return nn.AdaptiveMaxPool2d(1)
        case _:
            return Moved()


def _axes(sizes: Sequence[object]) -> int | None:
    """Returns how many axes a tensor of these sizes has; ``None`` if that is not known."""
    match sizes:
        case [ast.Tuple(parts) | ast.List(parts)]:
            return len(parts)
        case [tuple() | list()]:
            return len(cast(Sequence[object], sizes[0]))
        case [int()]:
            return 1
        case _:
            return len(sizes) if len(sizes) > 1 else None


def are_numbers(value: object, several: bool) -> bool:
    """Whether a value is a number, or if there may be several, some whole numbers or ``None``."""
    if type(value) in (int, float, bool):
        return True
    sizes = cast(Sequence[object], value) if type(value) in (tuple, list, torch.Size) else [value]
    return several and (value is None or all(type(each) is int for each in sizes))
