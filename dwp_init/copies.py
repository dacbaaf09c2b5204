"""Copies: layers that stay, with the values of one that is drawn, as in a momentum encoder or a target network."""

from collections.abc import Hashable, Iterable

import torch
from torch import Tensor

from dwp_init.layers import Layer

_COMPARED = 8  # numbers that are enough to tell most layers apart


def copies_among(left: Iterable[Layer], drawn: Iterable[Layer]) -> list[Layer]:
    """Returns the layers that have the values of one that is drawn, also rounded to another dtype, in their order.

    Args:
        left: Layers that stay as they are, whose weights can be read.
        drawn: Layers that are to be drawn, and have their old values.
    """
    alike: dict[Hashable, list[Layer]] = {}
    for layer in drawn:
        alike.setdefault(_form(layer), []).append(layer)
    return [layer for layer in left if any(_equal(layer, other) for other in alike.get(_form(layer), ()))]


def _form(layer: Layer) -> Hashable:
    return type(layer), layer.shape, layer.groups


def _equal(left: Layer, right: Layer) -> bool:
    if left.place == right.place:
        return False
    one, other = left.weight.read(), right.weight.read()
    return _same(one[0].reshape(-1)[:_COMPARED], other[0].reshape(-1)[:_COMPARED]) and _same(one, other)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in the dtype of fewer bits."""
    dtype = min(one.dtype, other.dtype, key=lambda each: each.itemsize)
    return torch.equal(one.to(dtype), other.to(one.device, dtype))
