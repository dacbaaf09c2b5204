"""Places: the memory of weights, and which of them share it."""

from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dwp_init.modules import only_holds
from dwp_init.shards import is_sharded
from dwp_init.tensors import reason_against
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
Owner = TypeVar("Owner", bound=Hashable)


def place_of(weight: Weight) -> Place:
    """Returns the memory of a weight: equal for two weights that share all of it."""
    return tuple(map(_span, weight.tensors))


def place_of_parameters(module: nn.Module) -> Place:
    """Returns the memory of a module's own parameters, as far as they have values; none for a list, which uses none."""
    if only_holds(module):
        return ()
    own = [each for each in module.parameters(recurse=False) if reason_against(each) is None]
    return tuple(map(_span, own))


def sharing(places: Iterable[tuple[Owner, Place]]) -> dict[Owner, list[Owner]]:
    """Returns for each owner of memory the others that share some of it; those that share none are left out."""
    spans = [(span, owner) for owner, place in places for span in place]
    spans.sort(key=lambda item: (str(item[0].device), item[0].start))
    found: dict[Owner, list[Owner]] = {}
    near: list[tuple[Span, Owner]] = []
    for span, owner in spans:
        near = [(other, whose) for other, whose in near if other.stop > span.start and other.device == span.device]
        for other, whose in near:
            if whose is not owner and span.overlaps(other):
                found.setdefault(owner, []).append(whose)
                found.setdefault(whose, []).append(owner)
        near.append((span, owner))
    return found


def _span(tensor: Tensor) -> Span:
    if is_sharded(tensor):  # its address is not that of its values, of which this process may hold none
        return Span(tensor.device, id(tensor), id(tensor) + 1, tensor.shape, ())
    start, item = tensor.data_ptr(), tensor.element_size()
    steps = tuple(stride * item for stride in tensor.stride())
    last = sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True))
    return Span(tensor.device, start, start + last + item, tensor.shape, steps)
