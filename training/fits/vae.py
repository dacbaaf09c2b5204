"""The fit of the kernel VAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dwp_init import KernelVAE
from dwp_init.priors.base import KernelShape
from training.engine.options import check_counts
from training.fits.base import has_form, register_fit
from training.fits.gradient import FitByGradient


@register_fit
@dataclass(frozen=True)
class FitVAE(FitByGradient):
    """Trains a kernel VAE on the evidence lower bound (Eq. 4) or the importance-weighted one.

    Args:
        network: ``dense``, or ``paper`` for the networks of Appendix H.1.
        latent_dim: Dimensions of z.
        hidden: Width of the dense decoder; 128 by default.
        dropout: Dropout in the dense encoder, while fitting.
        min_scale: Floor of the decoder's standard deviation.
        whiten: Whether the networks see whitened kernels.
        importance_samples: Latents per kernel and step; 1, the evidence lower bound, in the paper.
    """

    network: str = "dense"
    latent_dim: int = 16
    hidden: int | None = None
    dropout: float = 0.0
    min_scale: float = 0.05
    whiten: bool = True
    importance_samples: int = 1
    family: ClassVar[str] = "vae"

    @classmethod
    def _objective(cls, settings: Mapping[str, Any]) -> str:
        known = has_form(settings, importance_samples=int)
        return f", latents per kernel and step: {settings['importance_samples']}" if known else ""

    def build(self, shape: KernelShape) -> KernelVAE:
        return KernelVAE(shape, **self._arguments())

    def bound(self, prior: KernelVAE, kernels: Tensor) -> Tensor:
        check_counts(importance_samples=self.importance_samples)
        if self.importance_samples == 1:
            return prior.elbo(kernels)
        return prior.importance_bound(kernels, self.importance_samples)

    def _arguments(self) -> dict[str, Any]:
        names = ("network", "latent_dim", "hidden", "dropout", "min_scale", "whiten")
        return {name: getattr(self, name) for name in names}
