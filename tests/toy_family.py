"""Families of a user's own, as small as they can be: one with an exact density, one with a lower bound.

They are not registered when this module is imported: tests register them with the fixture ``toy_families``.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from dwp_init import Prior
from dwp_init.priors import Estimate
from dwp_init.priors.base import KernelShape


class Spherical(Prior):
    """Describes kernels by N(0, scale² I)."""

    family: ClassVar[str] = "spherical"
    exact: ClassVar[bool] = True
    scale: Tensor

    def __init__(self, kernel_shape: KernelShape) -> None:
        super().__init__(kernel_shape)
        self.register_buffer("scale", torch.ones(()))

    def arguments(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return f"A toy: a normal distribution without covariances. {self.describe_size()}"

    def check(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0; it is {self.scale:.4g}")

    def fit_(self, kernels: Tensor) -> "Spherical":
        """Fits the scale to kernels ``(n, c, k, k)`` by maximum likelihood."""
        self.scale.copy_(self._flatten(kernels).square().mean().sqrt())
        return self

    def log_prob(self, kernels: Tensor) -> Tensor:
        squares = (self._flatten(kernels) / self.scale).square().sum(1)
        return -0.5 * squares - self.dim * (self.scale.log() + 0.5 * math.log(2 * math.pi))

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        return self.scale * torch.randn(n, self.dim, generator=generator, device=self.device, dtype=self.dtype)


class SphericalBound(Spherical):
    """The same, known by a lower bound alone: below the density by the absolute value of a normal number."""

    family: ClassVar[str] = "spherical-bound"
    exact: ClassVar[bool] = False

    def log_prob(self, kernels: Tensor) -> Tensor:
        return self.estimate(kernels).log_prob

    def estimate(self, kernels: Tensor, samples: int = 256, generator: torch.Generator | None = None) -> Estimate:
        exact = super().log_prob(kernels)
        noise = torch.randn(len(exact), generator=generator, device=self.device, dtype=self.dtype)
        error = noise.abs() / math.sqrt(samples)
        return Estimate(exact - error, error)
