"""How the kernels of a prior become kernels of another size: by their middle rows, and by resampling axis by axis."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from dwp_init.report import size_text


class Fitting(NamedTuple):
    """How kernels of one size become kernels of another, of the same number of axes.

    Along an axis of length 1 the middle of a kernel is taken: the rows of kernels from a prior over k×k kernels are
    draws from its exact marginal over rows. Along other axes kernels are interpolated.

    Attributes:
        drawn: The size before; 1 along axes that the prior's kernels do not have.
        wanted: The size after.
    """

    drawn: tuple[int, ...]
    wanted: tuple[int, ...]

    @property
    def is_sliced(self) -> bool:
        """Whether the middle row, column or slice is taken."""
        return any(after == 1 < before for before, after in zip(self.drawn, self.wanted, strict=True))

    @property
    def is_resized(self) -> bool:
        """Whether kernels are interpolated."""
        return any(after not in (1, before) for before, after in zip(self.drawn, self.wanted, strict=True))

    @property
    def is_reduced(self) -> bool:
        """Whether kernels are interpolated to fewer weights along an axis."""
        return any(1 < after < before for before, after in zip(self.drawn, self.wanted, strict=True))

    @property
    def distance(self) -> float:
        """How far apart the sizes are: the sum of |log| of their ratios, along the axes that are interpolated."""
        pairs = zip(self.drawn, self.wanted, strict=True)
        return sum(abs(math.log(after / before)) for before, after in pairs if after > 1)

    def __str__(self) -> str:
        """Returns such as ``middle row of 7×7``, ``resized from 7×7``; empty if the size does not change."""
        axis = self.wanted.index(1) if self.is_sliced else 0
        part = f"middle {('row', 'column')[axis] if len(self.wanted) == 2 else 'slice'} of " if self.is_sliced else ""
        if self.is_resized:
            return f"resized from {'the ' * bool(part)}{part}{size_text(self.drawn)}"
        return f"{part}{size_text(self.drawn)}" if part else ""

    def __call__(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *drawn)`` to kernels ``(n, c, *wanted)``.

        Interpolation is linear, with antialiasing where kernels become smaller, and keeps the root mean square of all
        kernels together, which otherwise falls.
        """
        kernels = kernels.reshape(*kernels.shape[:2], *self.drawn)
        for axis, after in enumerate(self.wanted, start=2):
            if after == 1 < kernels.shape[axis]:
                kernels = kernels.narrow(axis, kernels.shape[axis] // 2, 1)
        before = kernels
        for axis, after in enumerate(self.wanted, start=2):
            if after != kernels.shape[axis]:
                kernels = _interpolated(kernels, axis, after)
        return kernels * (_rms(before) / _rms(kernels)) if self.is_resized else kernels


def fitting(size: Sequence[int], wanted: Sequence[int]) -> Fitting | None:
    """Returns how kernels of a size become kernels of another; ``None`` if they cannot.

    They cannot if an axis of length 1 would become longer, if nothing but a single weight would be left, or if the
    numbers of axes differ. But k×k kernels also fit a 3-D convolution with one axis of length 1, which is a 2-D
    one: of each image if its kernels are 1×k×k.
    """
    if len(size) == 2 and len(wanted) == 3 and list(wanted).count(1) == 1:
        size = list(size)
        size.insert(list(wanted).index(1), 1)
    if tuple(size) == tuple(wanted):
        return Fitting(tuple(size), tuple(wanted))
    if len(size) != len(wanted) or math.prod(wanted) == 1:
        return None
    longer = any(before == 1 < after for before, after in zip(size, wanted, strict=True))
    return None if longer else Fitting(tuple(size), tuple(wanted))


def _interpolated(kernels: Tensor, axis: int, length: int) -> Tensor:
    rows = kernels.movedim(axis, -1)
    flat = rows.reshape(-1, 1, 1, rows.shape[-1])
    found = F.interpolate(flat, (1, length), mode="bilinear", antialias=True)
    return found.reshape(*rows.shape[:-1], length).movedim(-1, axis)


def _rms(kernels: Tensor) -> Tensor:
    return kernels.square().mean().sqrt()
