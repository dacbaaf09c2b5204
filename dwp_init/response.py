"""The response of a layer: its scale, and how much its kernels amplify inputs whose neighbouring values are alike."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from dwp_init.priors.precision import full_precision
from dwp_init.split import split
from dwp_init.tensors import as_list, wide_dtype

RHO = 0.9
"""Assumed correlation of neighbouring values along each axis of a layer's input."""
RHO_DEPTHWISE = 0.7
"""The same for depthwise layers; the outputs of pointwise layers are less alike. See ``response_rho.csv``."""
ALIKE = 0.4
"""Assumed correlation between the input channels of a layer inside a network."""
ALIKE_IN_IMAGES = 0.9
"""Assumed correlation between the channels of an image."""
_PART = 2**19  # weights that are measured at a time
_MEASURED = 2**18  # weights from twice as many on of which a part is enough
_NARROW = 16  # numbers that a processor multiplies at a time


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


def root_mean_square(values: Tensor) -> float:
    """Returns √(Σ v² / n) of values of any dtype."""
    norm = _norm(values, wide_dtype(values.dtype))
    if not 1e-15 < norm < 1e15:  # squares overflow, or lose digits
        norm = _norm(values.cpu(), torch.float64)
    return norm / math.sqrt(values.numel())


def _norm(values: Tensor, dtype: torch.dtype) -> float:
    parts = split(values.detach().reshape(-1), _PART)
    norms: list[Tensor] = [torch.linalg.vector_norm(part, dtype=dtype) for part in parts]
    return math.hypot(*as_list(torch.stack(norms)))


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
    key = (tuple(size), tuple(dilation), tuple(stride or [1] * len(size)), rho)
    found = _CORRELATIONS.get(key) or tuple(_along(*axis, rho) for axis in zip(*key[:3], strict=True))
    if all(type(matrix) is Tensor for matrix in found):  # a FakeTensor would outlive its mode
        _CORRELATIONS[key] = found
    return found


_CORRELATIONS: dict[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], float], tuple[Tensor, ...]] = {}


@torch.inference_mode(False)
def _along(k: int, dilation: int, stride: int, rho: float) -> Tensor:
    places = torch.arange(k, dtype=torch.float64, device="cpu") * dilation
    distance = (places[:, None] - places).abs()
    return torch.where(distance % stride == 0, rho ** (distance / stride), 0.0)


@full_precision()
def strength(filters: Tensor, correlations: Sequence[Tensor], alike: float = 0.0) -> Strength:
    """Measures root mean square and gain of a weight.

    The gain is √(Σ ((1 − γ) Σ Q(k) + γ Q(Σ k)) / Σ kᵢ²): the outer sum is over output channels, and the inner ones are
    over the kernels k of one output channel. Q(k) = Σᵢⱼ kᵢ kⱼ ρ(i − j); γ is the correlation between input channels.
    Of a weight of more than 2¹⁹ numbers, Σ Q(k) is estimated from evenly spaced output channels, always the same.

    Args:
        filters: Kernels of shape ``(outputs, inputs, *size)``, of any dtype.
        correlations: ρ(i − j), matrices from :func:`correlation`.
        alike: γ.

    Returns:
        The strength; the gain of a weight that is all zero is 1, and that of one that is not finite is NaN.
    """
    dim = math.prod(map(len, correlations))
    each, joint, square = _moments(filters, dim, torch.float32)
    if not 1e-30 < square < 1e30:  # squares overflow, or lose digits
        exact = torch.float32 if filters.device.type == "mps" else torch.float64
        each, joint, square = _moments(filters, dim, exact)
    both = reduce(torch.kron, correlations) if correlations else torch.ones(1, 1, dtype=torch.float64, device="cpu")
    response = (torch.lerp(each, joint, alike) * both).sum().item()
    gain = math.sqrt(max(response, 0.0) / square) if square > 0 else (1.0 if square == 0 else math.nan)
    return Strength(math.sqrt(square / filters.numel()) if square >= 0 else math.nan, gain)


def _moments(filters: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Returns Σ k kᵀ over all kernels k of ``dim`` numbers, the same over the sums of each output channel, and Σ kᵀ k.

    The first two are ``(dim, dim)``, in float64 on the CPU.
    """
    step = max(filters.numel() // _MEASURED, 1)
    each = reduce(torch.add, (_products(part.reshape(-1, dim).to(dtype)) for part in _parts(filters[::step])))
    square = each.trace().item()
    if step > 1:
        whole = root_mean_square(filters) ** 2 * filters.numel()
        each, square = each * (whole / square) if square > 0 else each, whole
    if filters.shape[1] == 1:
        return each, each, square
    sums = torch.cat([part.to(dtype).flatten(2).sum(1) for part in _parts(filters)])
    return each, _products(sums), square


def _parts(filters: Tensor) -> tuple[Tensor, ...]:
    return split(filters.detach(), max(_PART // max(filters[0].numel(), 1), 1))


def _products(kernels: Tensor) -> Tensor:
    """Returns Σ k kᵀ over kernels ``(n, d)``, in float64 on the CPU; of narrow ones in pairs, twice as fast."""
    dim = kernels.shape[1]
    rows = kernels.reshape(-1, 2 * dim) if dim < _NARROW and len(kernels) % 2 == 0 else kernels
    found = (rows.mT @ rows).to("cpu", torch.float64)
    return found if len(found) == dim else found[:dim, :dim] + found[dim:, dim:]
