"""Layers that pass their inputs on: their first output channels are the input channels, or a multiple of them."""

import torch
from torch import Tensor, nn

from dwp_init.layers import Layer
from dwp_init.modules import per_axis

_IN_A_ROW = 3  # normalised layers that pass all their inputs on, as many as the benchmark has


class CopiesInARow:
    """Layers in a row that pass all their inputs on behind normalisations, of which there are three at most.

    A rectifier takes what is below the mean again behind each normalisation, so that activations become sparser.
    """

    def __init__(self) -> None:
        self._length = 0

    def allows(self, may_pass: bool, whole: bool) -> bool:
        """Returns whether the next layer may pass its inputs on.

        Args:
            may_pass: Whether it may if it is alone.
            whole: Whether it then passes all on behind a normalisation.
        """
        end = may_pass and whole and self._length == _IN_A_ROW
        self._length = self._length + 1 if may_pass and whole and not end else 0
        return may_pass and not end


def can_pass_on(layer: Layer) -> bool:
    """Whether a layer can return its inputs: its kernels have a middle, no input is lost, and it is no stem.

    A layer of stride 2 would lose three of four pixels. What is lost without padding is the border.
    """
    odd, wide = all(k % 2 for k in layer.size), layer.shape[0] >= layer.inputs * layer.groups
    whole = wide and all(step == 1 for step in per_axis(layer.module, "stride", len(layer.size)))
    return odd and whole and not layer.first and not layer.is_depthwise and type(layer) is Layer


def passed_on(layer: Layer) -> int:
    """Returns how many output channels of a layer become copies, if it passes its inputs on: one for each input."""
    return layer.inputs * layer.groups


def passes_on(layer: Layer, *, exactly: bool) -> bool:
    """Whether the weight of a layer that can pass its inputs on does so, and no other output channel is zero.

    Args:
        layer: The layer.
        exactly: Whether the outputs must be copies of the inputs; if not, they must be one positive multiple of these.
            A draw that keeps a response has no reason to be 1, so that copies are ``dirac_``, by the author.
    """
    filters = layer.filters(layer.weight.read())
    if filters[0].float().count_nonzero() != 1:  # torch counts nothing in eight bits
        return False
    by_group = filters.float().view(layer.groups, -1, *filters.shape[1:])
    copies, others = by_group[:, : layer.inputs], by_group[:, layer.inputs :]
    expected = nn.init.dirac_(torch.empty_like(copies[0]))
    factor = 1.0 if exactly else copies.max().item()
    by_author = not exactly and factor == 1
    same = factor > 0 and not by_author and (copies == factor * expected).all()
    return bool(same and others.flatten(2).any(2).all())


def pass_on_(filters: Tensor, groups: int, by: float = 1.0) -> None:
    """Makes the first output channels of each group its input channels, by one number in the middle of one kernel.

    With n inputs these are the first n, or all of them if there are fewer. Without a bias, and behind a ReLU that
    gets the outputs of another one, they are the inputs exactly if the number is 1.

    Args:
        filters: ``(outputs, inputs, *size)``, with the outputs of a group adjacent; changed in place.
        groups: Number of groups.
        by: The number.
    """
    for group in filters.chunk(groups):
        nn.init.dirac_(group[: filters.shape[1]]).mul_(by)
