"""The response of a layer: its scale, and how much its kernels amplify inputs whose neighbouring values are alike."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from dwp_init.priors.precision import full_precision

RHO = 0.875
"""Assumed correlation of neighbouring values along each axis of a layer's input."""
ALIKE = 0.35
"""Assumed correlation between the input channels of a layer inside a network."""
ALIKE_IN_IMAGES = 0.8
"""Assumed correlation between the channels of an image; in photographs it is higher, in other images lower."""
_PART = 2**18  # weights that are measured at a time


class Strength(NamedTuple):
    """How strong a weight is.

    Attributes:
        rms: Root mean square of the weights.
        gain: Root mean square of the outputs for correlated inputs, over that for white inputs of the same scale. It
            is 1 for white noise, above 1 for smooth kernels, and below 1 for kernels that take differences.
    """

    rms: float
    gain: float

    @property
    def response(self) -> float:
        """The root mean square of a white noise weight whose outputs are as strong: ``rms · gain``."""
        return self.rms * self.gain


def correlation(
    size: Sequence[int], dilation: Sequence[int], stride: Sequence[int] | None = None, rho: float = RHO
) -> tuple[Tensor, ...]:
    """Returns the correlations between the inputs of a kernel's taps, one matrix ``(k, k)`` for each axis.

    Inputs that are Δ apart along an axis have the correlation ρ^|Δ|; the correlations of several axes are multiplied.

    Args:
        size: Size of the kernels.
        dilation: Distance of neighbouring taps along each axis.
        stride: Strides of a transposed convolution, where only every stride-th tap reaches the same output value;
            ``None`` for other convolutions, in which the stride does not matter.
        rho: ρ.
    """
    matrices: list[Tensor] = []
    for k, apart, step in zip(size, dilation, stride or [1] * len(size), strict=True):
        places = torch.arange(k, dtype=torch.float64, device="cpu") * apart
        distance = (places[:, None] - places).abs()
        matrices.append(torch.where(distance % step == 0, rho ** (distance / step), 0.0))
    return tuple(matrices)


@full_precision()
def strength(filters: Tensor, correlations: Sequence[Tensor], alike: float = 0.0) -> Strength:
    """Measures root mean square and gain of a weight.

    The gain is √(Σ ((1 − γ) Σ Q(k) + γ Q(Σ k)) / Σ kᵢ²): the outer sum is over output channels, and the inner ones are
    over the kernels k of one output channel. Q(k) = Σᵢⱼ kᵢ kⱼ ρ(i − j); γ is the correlation between input channels.

    Args:
        filters: Kernels of shape ``(outputs, inputs, *size)``, of any dtype.
        correlations: ρ(i − j), matrices from :func:`correlation`.
        alike: γ.

    Returns:
        The strength; the gain of a weight that is all zero is 1, and that of one that is not finite is NaN.
    """
    dim = math.prod(map(len, correlations))
    each, joint = _moments(filters, dim, torch.float32)
    square = each.trace().item()
    if not 1e-30 < square < 1e30:  # squares overflow, or lose digits
        each, joint = _moments(filters, dim, torch.float32 if filters.device.type == "mps" else torch.float64)
        square = each.trace().item()
    both = reduce(torch.kron, correlations, torch.ones(1, 1, dtype=torch.float64, device="cpu"))
    response = (((1 - alike) * each + alike * joint) * both).sum().item()
    gain = math.sqrt(max(response, 0.0) / square) if square > 0 else (1.0 if square == 0 else math.nan)
    return Strength(math.sqrt(square / filters.numel()) if square >= 0 else math.nan, gain)


def _moments(filters: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns Σ k kᵀ over all kernels k of ``dim`` numbers, and over the sums of each output channel's kernels.

    Both are ``(dim, dim)``, in float64 on the CPU.
    """
    totals = torch.zeros(2, dim, dim, dtype=torch.float64, device="cpu")
    for part in filters.detach().split(max(_PART // max(filters[0].numel(), 1), 1)):
        kernels = part.reshape(len(part), -1, dim).to(dtype)
        for total, flat in zip(totals, (kernels.flatten(0, 1), kernels.sum(1)), strict=True):
            total += (flat.mT @ flat).to("cpu", torch.float64)
    return totals[0], totals[1]
