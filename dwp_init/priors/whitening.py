"""Whitening: the affine map under which kernels have mean 0 and covariance I."""

import math
from abc import ABC, abstractmethod
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)
MIN_DIAGONAL = 1e-12  # its square is still a float32
_Kind = TypeVar("_Kind", bound="AffineWhitening")


class AffineWhitening(nn.Module, ABC):
    """An affine map of kernels w to u with mean 0 and covariance I, and back; the base class of both kinds.

    Starts as the identity; :meth:`fit_` sets it from kernels.

    Args:
        dim: Number of values in a kernel.
    """

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))

    @torch.no_grad()
    def fit_(self: _Kind, kernels: Tensor, min_scale: float = 1e-3) -> _Kind:
        """Sets mean and covariance to those of kernels ``(n, dim)``, by maximum likelihood.

        Args:
            kernels: At least two kernels.
            min_scale: Lower limit of each direction's standard deviation, as a fraction of the largest one.

        Raises:
            ValueError: There are fewer than two kernels, they are all equal, or they hold NaN or infinity.
        """
        loc, basis, scale = _moments(kernels, min_scale)
        self.loc.copy_(loc)
        self._set(basis, scale)
        return self

    @abstractmethod
    def _set(self, basis: Tensor, scale: Tensor) -> None:
        """Takes the covariance V diag(scale²) Vᵀ of a basis V ``(dim, dim)``, in float64."""

    @abstractmethod
    def check(self) -> None:
        """Raises ``ValueError`` if the map has no inverse or is not of the form of its class."""

    @abstractmethod
    def forward(self, kernels: Tensor) -> Tensor:
        """Whitens kernels ``(n, dim)``."""

    @abstractmethod
    def inverse(self, white: Tensor) -> Tensor:
        """Maps whitened vectors ``(n, dim)`` back to kernels."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """Returns log |det dw/du|, in nats: log p(w) = log p(u) - log_det."""


class Whitening(AffineWhitening):
    """Maps kernels w to u = (w - loc) V / scale, for a covariance V diag(scale²) Vᵀ, and back."""

    basis: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("basis", identity(dim))
        self.register_buffer("scale", torch.ones(dim))

    def _set(self, basis: Tensor, scale: Tensor) -> None:
        self.basis.copy_(basis)
        self.scale.copy_(scale)

    def check(self) -> None:
        """Raises ``ValueError`` if ``basis`` is not orthogonal or ``scale`` not positive, so not a valid whitening."""
        if not (self.scale > 0).all():
            raise ValueError(f"every scale must be above 0; the smallest is {self.scale.min():.4g}")
        identity = torch.eye(len(self.basis), device=self.basis.device, dtype=self.basis.dtype)
        error = (self.basis.T @ self.basis - identity).abs().max()
        if not error < 1e-3:
            raise ValueError(f"basis must be orthogonal; basisᵀ basis is up to {error:.4g} from the identity")

    def forward(self, kernels: Tensor) -> Tensor:
        """Whitens kernels ``(..., dim)``."""
        return (kernels - self.loc) @ self.basis / self.scale

    def inverse(self, white: Tensor) -> Tensor:
        return torch.addmm(self.loc, white, (self.basis * self.scale).T)

    def log_det(self) -> Tensor:
        return self.scale.log().sum()


class RasterWhitening(AffineWhitening):
    """Maps kernels w to u = L⁻¹ (w - loc), for a covariance L Lᵀ with L lower triangular, and back.

    Each number of u depends on those of w up to its own place in raster order: it is the residual of the linear
    prediction from the numbers before it, in units of its standard deviation.
    """

    tril: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("tril", identity(dim))

    def _set(self, basis: Tensor, scale: Tensor) -> None:
        half = basis * scale
        self.tril.copy_(torch.linalg.cholesky(half @ half.T))

    def check(self) -> None:
        """Raises ``ValueError`` if ``tril`` is not lower triangular with a positive diagonal."""
        check_tril(tril=self.tril)

    def forward(self, kernels: Tensor) -> Tensor:
        """Whitens kernels ``(n, dim)``."""
        white: Tensor = torch.linalg.solve_triangular(self.tril, (kernels - self.loc).T, upper=False)
        return white.T

    def inverse(self, white: Tensor) -> Tensor:
        return torch.addmm(self.loc, white, self.tril.T)

    def log_det(self) -> Tensor:
        return self.tril.diagonal().log().sum()


def identity(dim: int, *several: int) -> Tensor:
    """Returns ``(*several, dim, dim)``; on the meta device ``torch.eye`` and ``repeat`` would import all of sympy."""
    found = torch.zeros(*several, dim, dim)
    found.diagonal(dim1=-2, dim2=-1).fill_(1)
    return found


def check_tril(**factors: Tensor) -> None:
    """Raises ``ValueError`` if a Cholesky factor ``(..., d, d)`` is not lower triangular or has no inverse."""
    for name, factor in factors.items():
        least = factor.diagonal(dim1=-2, dim2=-1).min().item()
        if not least > MIN_DIAGONAL:
            raise ValueError(f"the diagonal of {name} must be above {MIN_DIAGONAL}; its minimum is {least:.4g}")
        above = factor.triu(1).count_nonzero().item()
        if above:
            raise ValueError(f"{name} must be lower triangular; {above} numbers above its diagonal are not 0")


def _moments(kernels: Tensor, min_scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean ``(d,)``, orthogonal basis ``(d, d)`` and standard deviations ``(d,)`` of kernels, in float64."""
    if len(kernels) < 2:
        raise ValueError(f"a covariance needs at least 2 kernels; got {len(kernels)}")
    broken = (~kernels.isfinite()).any(1).sum().item()
    if broken:
        raise ValueError(f"{broken} of {len(kernels)} kernels hold NaN or infinity; remove them")
    exact = kernels.double()
    covariance = torch.cov(exact.T, correction=0).reshape(exact.shape[1], exact.shape[1])
    variances, basis = cast(tuple[Tensor, Tensor], torch.linalg.eigh(covariance))
    largest = variances[-1].clamp_min(0).sqrt().item()
    if largest == 0:
        raise ValueError(f"the {len(kernels)} kernels are all equal; a covariance needs some spread")
    return exact.mean(0), basis, variances.clamp_min(0).sqrt().clamp_min(min_scale * largest)


def standard_normal_log_prob(x: Tensor) -> Tensor:
    """Returns log N(x; 0, I) summed over the last dimension, in nats."""
    return -0.5 * (x.square().sum(-1) + x.shape[-1] * LOG_2PI)
