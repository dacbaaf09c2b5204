"""Modules of classes that torch does not have: which of them convolve, and how, by their weight and attributes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from dwp_init.priors.checks import whole_number
from dwp_init.weights import weight_of

Layout = Literal["plain", "transposed", "experts"]
_RANKS = (1, 2, 3)
_WAY_OUT = "initialise it yourself"


class Geometry(NamedTuple):
    """What is known of a convolution.

    Attributes:
        kernel_size: Size of its kernels.
        layout: How its weight is made of kernels: as in ``Conv2d``, as in ``ConvTranspose2d``, or a row for each of
            several experts, as in timm's ``CondConv2d``.
        reason: Why it cannot be initialised; ``None`` if it can.
    """

    kernel_size: tuple[int, ...]
    layout: Layout = "plain"
    reason: str | None = None


def geometry_of(module: nn.Module) -> Geometry | None:
    """Says how a module convolves, by its weight and attributes; ``None`` if nothing shows that it does.

    A convolution has a ``weight`` of 3 to 5 dimensions, of which those after the second are its ``kernel_size``, and
    ``groups``, which may be missing if ``in_channels`` and ``out_channels`` say that there is one group. With the
    attribute ``transposed=True`` the weight is that of a transposed convolution. ``torchvision.ops.DeformConv2d`` and
    its kin in mmcv are like that. Experts have ``num_experts`` rows of weights, and a ``weight_shape`` for each.

    Other modules with a kernel size, channels and parameters of their own convolve too, but it is not known how. So do
    modules with an unexplained ``weight`` of 4 or 5 dimensions. They have a reason.
    """
    kind = type_before_parametrizations(module)
    if kind.__module__.startswith("torch.nn.") or not has_parameters(module):
        return None
    if counts(module, "num_experts") and (expert := _sizes(getattr(module, "weight_shape", None))):
        return Geometry(expert[2:], "experts")
    shape = _weight_shape(module)
    size = _kernel_size(module, shape)
    if size and (counts(module, "groups") or counts(module, "in_channels", "out_channels")):
        layout: Layout = "transposed" if getattr(module, "transposed", False) is True else "plain"
        return Geometry(size, layout, _fault(module, kind.__name__, size, shape, layout))
    if shape is not None and len(shape) in (4, 5) and math.prod(shape[2:]) > 1:
        missing = "groups" if size else "kernel_size"
        return Geometry(shape[2:], reason=f"{kind.__name__} with a weight {shape} has no {missing}: {_WAY_OUT}")
    return None


def has_parameters(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, also if they are under a parametrization."""
    state: dict[str, dict[str, object]] = vars(module)  # faster than module.parameters(); traced modules have neither
    own = state.get("_parameters", {}).values()
    return any(value is not None for value in own) or "parametrizations" in state.get("_modules", {})


def per_axis(module: nn.Module, name: str, rank: int) -> tuple[int, ...]:
    """Returns an attribute such as ``stride`` for each axis of a kernel; 1 for each if the module has none."""
    value = getattr(module, name, 1)
    sizes = _sizes(value if isinstance(value, (tuple, list)) else [value] * rank)
    return sizes if len(sizes) == rank else (1,) * rank


def counts(module: nn.Module, *names: str) -> tuple[int, ...]:
    """Returns attributes that are whole numbers above 0; empty if one of them is missing or anything else."""
    return _sizes([getattr(module, name, None) for name in names])


def only_holds(module: nn.Module) -> bool:
    """Whether a module has no forward pass, so that it uses none of its parameters, as ``nn.ParameterList``."""
    return getattr(type(module), "forward", None) is nn.Module.forward and "forward" not in vars(module)


def weight_count(module: nn.Module) -> int:
    """Returns the number of weights of a convolution as far as is known without reading them, otherwise 0."""
    if shape := _weight_shape(module):
        return math.prod(shape)
    channels = counts(module, "in_channels", "out_channels", "groups")
    size = _sizes(getattr(module, "kernel_size", None))
    return channels[0] * channels[1] // channels[2] * math.prod(size) if channels and size else 0


def _fault(
    module: nn.Module, kind: str, size: tuple[int, ...], shape: tuple[int, ...] | None, layout: Layout
) -> str | None:
    """Says why a module with a kernel size cannot be initialised; ``None`` if it can, as far as is known."""
    if shape is None:
        lazy = bool(weight_of(module).tensors)
        return None if lazy else f"{kind} has no parameter called weight: {_WAY_OUT}"
    groups = counts(module, "groups") or (1,)
    channels = counts(module, "in_channels", "out_channels")[:: 1 if layout == "transposed" else -1]
    expected = ((channels[0], channels[1] // groups[0]) if channels else shape[:2]) + size
    if len(size) in _RANKS and shape == expected:
        return None
    return f"{kind} has a weight {shape}, but its attributes say {expected}: {_WAY_OUT}"


def _weight_shape(module: nn.Module) -> tuple[int, ...] | None:
    """Returns the shape of a module's weight; ``None`` if it has none, or one that is lazy."""
    tensors = weight_of(module).tensors
    weight: object = tensors[-1] if tensors else vars(module).get("weight")  # the latter under prune
    return tuple(weight.shape) if isinstance(weight, Tensor) and not is_lazy(weight) else None


def _kernel_size(module: nn.Module, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the attribute ``kernel_size``, if it is one number for each axis; empty if there is none."""
    value = getattr(module, "kernel_size", None)
    return _sizes(value if isinstance(value, (tuple, list)) else [value] * (2 if shape is None else len(shape) - 2))


def _sizes(value: object) -> tuple[int, ...]:
    """Returns whole numbers above 0, also numpy's, as a tuple; empty if the value is anything else."""
    values = tuple(cast(Sequence[object], value)) if isinstance(value, (tuple, list)) else ()
    try:
        sizes = tuple(whole_number(each, "size") for each in values)
    except TypeError:
        return ()
    return sizes if all(each > 0 for each in sizes) else ()
