"""Kernel density estimation: the learned kernels themselves, each blurred by the covariance of all."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.checks import check_count
from dwp_init.priors.whitening import LOG_2PI, Whitening

MIN_BANDWIDTH = 1e-4


@register
class KernelDensity(Prior):
    """Describes kernels by p(w) = 1/N Σᵢ N(w; wᵢ, h² Σ) over N learned kernels wᵢ of covariance Σ.

    ``noise=False`` draws at zero bandwidth: learned kernels at random, bit for bit, the «filters» of Section 4.3.

    Args:
        kernel_shape: ``(c, *size)``.
        count: Number of learned kernels, N.
    """

    family: ClassVar[str] = "kde"
    exact: ClassVar[bool] = True
    has_noise: ClassVar[bool] = True
    learned: Tensor
    bandwidth: Tensor

    def __init__(self, kernel_shape: KernelShape, count: int = 1) -> None:
        super().__init__(kernel_shape)
        check_count(count=count)
        self.count = count
        self.whitening = Whitening(self.dim)
        self.register_buffer("learned", torch.zeros(count, self.dim))
        self.register_buffer("bandwidth", torch.ones(()))

    def arguments(self) -> dict[str, Any]:
        return {"count": self.count}

    def describe(self) -> str:
        return (
            f"A kernel density: {self.count:,} learned kernels, each blurred by the covariance of all. "
            f"{self.describe_size()}"
        )

    def check(self) -> None:
        """Raises ``ValueError`` if the bandwidth is not positive, or so small that densities overflow."""
        if not self.bandwidth > MIN_BANDWIDTH:
            raise ValueError(f"bandwidth must be above {MIN_BANDWIDTH}; it is {self.bandwidth:.4g}")

    @torch.no_grad()
    def fit_(self, kernels: Tensor, validation: Tensor | None = None, most: int = 2000) -> "KernelDensity":
        """Stores ``count`` kernels, and chooses the bandwidth under which other kernels have the highest log p.

        Args:
            kernels: ``(count, c, *size)``.
            validation: Kernels ``(n, c, *size)`` of other networks, to choose the bandwidth by. By default each kernel
                is left out in turn, which is optimistic if the kernels of one network are alike.
            most: Maximum number of kernels to choose the bandwidth by, evenly spaced.

        Raises:
            ValueError: There are not ``count`` kernels, ``validation`` is empty or not finite, or
                :meth:`Whitening.fit_` raises it.
        """
        flat = self._flatten(kernels)
        if len(flat) != self.count:
            raise ValueError(f"this density keeps count={self.count} kernels; got {len(flat)}")
        check_count(most=most)
        judges = flat if validation is None else self._flatten(validation)
        if not len(judges) or not judges.isfinite().all():
            raise ValueError(f"validation must hold kernels without NaN or infinity; got {len(judges)} kernels")
        self.whitening.fit_(flat)
        self.learned.copy_(flat)
        every = max(-(-len(judges) // most), 1)
        squares = self._squares(self.whitening(judges[::every])).double()
        if validation is None:
            squares[torch.arange(len(squares)), torch.arange(0, len(judges), every)] = math.inf
        self.bandwidth.fill_(_likeliest_bandwidth(squares, self.dim))
        return self

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel."""
        white = self.whitening(self._flatten(kernels))
        parts = [
            torch.logsumexp(-0.5 * self._squares(part) / self.bandwidth.square(), 1)
            for part in torch.split(white, max(2**24 // (self.count * self.dim), 1))
        ]
        constant = math.log(self.count) + self.dim * (0.5 * LOG_2PI + self.bandwidth.log()) + self.whitening.log_det()
        return torch.cat(parts) - constant if parts else white.new_zeros(0)

    def _squares(self, white: Tensor) -> Tensor:
        """Returns squared distances of whitened kernels ``(n, d)`` to the learned ones, ``(n, count)``."""
        learned = self.whitening(self.learned)
        return torch.cdist(white, learned, compute_mode="donot_use_mm_for_euclid_dist").square()

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        picked = torch.randint(self.count, (n,), generator=generator, device=self.device)
        kernels = self.learned[picked]
        if not noise:
            return kernels
        white = torch.randn(kernels.shape, generator=generator, device=self.device, dtype=self.dtype)
        return kernels + self.bandwidth * (self.whitening.inverse(white) - self.whitening.loc)


def _likeliest_bandwidth(squares: Tensor, dim: int) -> float:
    """Returns the bandwidth with the highest mean log p, from a grid of 0.02 to 2 in steps of 2.5 %."""
    grid = torch.logspace(math.log10(0.02), math.log10(2), 188, dtype=squares.dtype)
    found = torch.stack([torch.logsumexp(-0.5 * squares / h**2, 1).mean() - dim * h.log() for h in grid])
    return grid[found.argmax()].item()
