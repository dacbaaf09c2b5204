"""Places: the memory of weights, and which of them share it."""

from typing import NamedTuple

import torch
from torch import Tensor

from dwp_init.shards import is_sharded
from dwp_init.weights import Weight


class Span(NamedTuple):
    """The memory of a tensor.

    Attributes:
        device: Its device.
        start: Address of the first byte.
        stop: Address behind the last byte.
        shape: Shape of the tensor.
        steps: Bytes between neighbouring elements in each dimension.
    """

    device: torch.device
    start: int
    stop: int
    shape: torch.Size
    steps: tuple[int, ...]

    def overlaps(self, other: "Span") -> bool:
        """Whether the two have an element in common."""
        if self.stop <= other.start or other.stop <= self.start or self.device != other.device:
            return False
        if self == other:
            return True
        return bool(torch.isin(self._addresses(), other._addresses()).any())

    def _addresses(self) -> Tensor:
        """Returns the address of each element: views with gaps between their elements may interlock."""
        found = torch.tensor([self.start], device="cpu")
        for size, step in zip(self.shape, self.steps, strict=True):
            found = (found[:, None] + torch.arange(size, device="cpu") * step).flatten()
        return found


Place = tuple[Span, ...]


def place_of(weight: Weight) -> Place:
    """Returns the memory of a weight: equal for two weights that share all of it."""
    return tuple(map(_span, weight.tensors))


def overlap(left: Place, right: Place) -> bool:
    """Whether two weights have memory in common."""
    for ours in left:
        for theirs in right:
            if ours.overlaps(theirs):
                return True
    return False


def _span(tensor: Tensor) -> Span:
    if is_sharded(tensor):  # its address is not that of its values, of which this process may hold none
        return Span(tensor.device, id(tensor), id(tensor) + 1, tensor.shape, ())
    start, item = tensor.data_ptr(), tensor.element_size()
    steps = tuple(stride * item for stride in tensor.stride())
    last = sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True))
    return Span(tensor.device, start, start + last + item, tensor.shape, steps)
