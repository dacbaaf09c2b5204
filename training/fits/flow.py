"""The fit of the normalizing flow."""

from dataclasses import dataclass
from typing import ClassVar, cast

from dwp_init import Flow
from dwp_init.priors.base import KernelShape
from dwp_init.priors.flow import FlowNetwork
from training.fits.base import register_fit
from training.fits.gradient import FitByGradient


@register_fit
@dataclass(frozen=True)
class FitFlow(FitByGradient):
    """Trains a normalizing flow by maximum likelihood.

    Args:
        network: ``maf`` or ``nsf``.
        transforms: Number of transforms, applied in sequence.
        hidden: Width of their hidden layers.
        coupling: Whether they are coupling transforms instead of autoregressive ones.
    """

    network: str = "maf"
    transforms: int = 3
    hidden: int = 64
    coupling: bool = False
    family: ClassVar[str] = "flow"

    def build(self, shape: KernelShape) -> Flow:
        return Flow(shape, cast(FlowNetwork, self.network), self.transforms, self.hidden, self.coupling)
