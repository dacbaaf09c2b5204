"""A Gaussian with a full covariance, the control that every other prior must beat."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.whitening import Whitening, standard_normal_log_prob


@register
class Gaussian(Prior):
    """Describes kernels by N(loc, Σ) with a full covariance Σ (Appendix C).

    Args:
        kernel_shape: ``(c, *size)``.
    """

    family: ClassVar[str] = "gaussian"
    exact: ClassVar[bool] = True

    def __init__(self, kernel_shape: KernelShape) -> None:
        super().__init__(kernel_shape)
        self.whitening = Whitening(self.dim)

    def arguments(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return f"A Gaussian with a full covariance. {self.describe_size()}"

    def fit_(self, kernels: Tensor) -> "Gaussian":
        """Fits mean and covariance to kernels ``(n, c, *size)`` by maximum likelihood."""
        self.whitening.fit_(self._flatten(kernels))
        return self

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel."""
        return standard_normal_log_prob(self.whitening(self._flatten(kernels))) - self.whitening.log_det()

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        white = torch.randn(n, self.dim, generator=generator, device=self.device, dtype=self.dtype)
        return self.whitening.inverse(white)
