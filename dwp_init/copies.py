"""Copies: layers that have the values of another, as those of a momentum encoder or of a target network."""

from collections.abc import Hashable, Iterable

import torch

from dwp_init.layers import Layer
from dwp_init.tensors import as_list

_COMPARED = 8  # numbers that are enough to tell most layers apart


def copies_among(layers: Iterable[Layer], originals: set[Layer]) -> dict[Layer, Layer]:
    """Returns the layers that have the values of another one, each with that one: the first original of these values.

    Args:
        layers: Layers whose weights can be read, in their order.
        originals: Those of which there may be copies, which may be copies themselves.
    """
    alike: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        alike.setdefault(_form(layer), []).append(layer)
    found: dict[Layer, Layer] = {}
    for group in alike.values():
        if len(group) > 1 and not originals.isdisjoint(group):
            found |= _copies_in(group, originals)
    return found


def _copies_in(group: list[Layer], originals: set[Layer]) -> dict[Layer, Layer]:
    by_start: dict[Hashable, list[Layer]] = {}
    for layer in group:
        by_start.setdefault(_start(layer), []).append(layer)
    found: dict[Layer, Layer] = {}
    for near in by_start.values():
        for original in (layer for layer in near if layer in originals):
            for layer in near if original not in found else ():
                if layer is not original and layer not in found and _equal(layer, original):
                    found[layer] = original
    return found


def _form(layer: Layer) -> Hashable:
    return type(layer), layer.shape, layer.groups, layer.weight.dtype, layer.weight.device


def _start(layer: Layer) -> Hashable:
    """Returns the first values of a weight."""
    return tuple(as_list(layer.weight.read()[0].reshape(-1)[:_COMPARED]))


def _equal(left: Layer, right: Layer) -> bool:
    return torch.equal(left.weight.read(), right.weight.read())
