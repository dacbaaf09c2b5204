"""The fit of the autoregressive density."""

from dataclasses import dataclass
from typing import ClassVar

from dwp_init import Autoregressive
from dwp_init.priors.base import KernelShape
from training.fits.base import register_fit
from training.fits.gradient import FitByGradient


@register_fit
@dataclass(frozen=True)
class FitAutoregressive(FitByGradient):
    """Trains an autoregressive density by maximum likelihood.

    Args:
        hidden: Width of the first layer.
        mixtures: Number of normals in each factor.
        dropout: Dropout in both layers, while fitting.
    """

    hidden: int = 128
    mixtures: int = 4
    dropout: float = 0.0
    family: ClassVar[str] = "autoregressive"

    def build(self, shape: KernelShape) -> Autoregressive:
        return Autoregressive(shape, self.hidden, self.mixtures, self.dropout)
