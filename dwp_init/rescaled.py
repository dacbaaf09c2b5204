"""Layers whose weight has the same scale whatever is stored, as under spectral_norm or weight standardisation."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode  # documented in "Extending PyTorch"

from dwp_init.layers import Layer
from dwp_init.randomness import OwnRandomness
from dwp_init.shards import whole
from dwp_init.weights import Weight


def is_rescaled(layer: Layer, weight: Tensor) -> bool:
    """Whether a layer convolves with a weight of about the same scale if the stored one is twice as large.

    A trial tells, not a name: what is stored is doubled in copies, and the module does not change. A forward pass of
    PyTorch takes the weight as it is; one of another library runs up to its first convolution, whose weight is
    compared. What a forward pass that needs more than one input does is not known, and it is taken not to rescale.

    Args:
        layer: The layer.
        weight: Its weight, as it was read.
    """
    forward = getattr(type(layer.module), "forward", None)
    try:
        if type(layer.weight) is not Weight and _near(layer.weight.read(2), weight):
            return True
        if forward is None or getattr(forward, "__module__", "").startswith("torch."):
            return False
        one, other = (_convolved(layer, forward, part) for part in (weight, -2 * weight))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a parametrization of some weights only; a forward pass of more inputs, or without a convolution
        return False
    return _near(-other, one)  # what is made of other tensors does not change its sign


def _near(value: Tensor, other: Tensor) -> bool:
    """Whether a weight is nearer to another one than to twice that; zero and NaN are near to nothing."""
    value, other = value.float(), other.float()
    return bool((value - other).square().sum() < other.square().sum() / 4)


def _convolved(layer: Layer, forward: Callable[..., object], weight: Tensor) -> Tensor:
    """Returns the weight of the first convolution in the forward pass of a layer whose weight is ``weight``."""
    extent = [step * (side - 1) + 1 for step, side in zip(layer.dilation, layer.size, strict=True)]
    image = weight.new_zeros(1, layer.inputs * layer.groups, *extent)
    twin, found = _with_weight(layer.module, forward, weight), _FirstConvolution()
    with torch.no_grad(), OwnRandomness(), suppress(_Found), found:
        forward(twin, image)
    return found.weight


def _with_weight(module: nn.Module, forward: Callable[..., object], weight: Tensor) -> nn.Module:
    """Returns a module of the same attributes without hooks, and with copies of what a forward pass may change."""
    kind: type[nn.Module] = next(
        each
        for each in type(module).__mro__  # the class below those of parametrizations, whose weight is a property
        if getattr(each, "forward", None) is forward and not isinstance(getattr(each, "weight", None), property)
    )
    own, made = vars(module), ("weight", "parametrizations")
    parameters, modules = own["_parameters"].items(), own["_modules"].items()
    twin: nn.Module = object.__new__(kind)
    vars(twin).update(
        own,
        weight=weight,
        _parameters={name: each if each is None else whole(each) for name, each in parameters if name not in made},
        _modules={name: copy.deepcopy(each) for name, each in modules if name not in made},
        _buffers=copy.deepcopy(own["_buffers"]),
    )
    return twin


class _Found(Exception):
    """A convolution is about to be computed."""


class _FirstConvolution(TorchFunctionMode):
    """A context that ends at the first convolution and keeps its weight."""

    weight: Tensor

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        given = kwargs or {}
        if getattr(func, "__name__", "").startswith("conv"):
            self.weight = args[1] if len(args) > 1 else given["weight"]
            raise _Found
        return func(*args, **given)
