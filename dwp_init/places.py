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
        ranges: dict[int, tuple[int, int]] = {}  # of the multiples of each step from an element here to one there
        for sign, span in ((1, self), (-1, other)):
            for size, step in zip(span.shape, span.steps, strict=True):
                low, high = ranges.get(step, (0, 0))
                ranges[step] = (low, high + size - 1) if sign > 0 else (low - size + 1, high)
        ranges.pop(0, None)  # the steps of expanded dimensions
        return _adds_up(other.start - self.start, sorted(ranges.items(), reverse=True))


def _adds_up(total: int, ranges: list[tuple[int, tuple[int, int]]]) -> bool:
    """Whether a total is a sum of multiples of steps, the longest first, each multiple within its range.

    Views with gaps between their elements may interlock. The shorter steps together hardly reach further than a longer
    one, so few multiples of this come into question.
    """
    if not ranges:
        return total == 0
    (step, (low, high)), *rest = ranges
    least, most = (sum(other * bounds[end] for other, bounds in rest) for end in (0, 1))
    low, high = max(low, -((most - total) // step)), min(high, (total - least) // step)
    return any(_adds_up(total - multiple * step, rest) for multiple in range(low, high + 1))


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
