"""The fit of the Markov-chain prior."""

from dataclasses import dataclass
from typing import ClassVar

from dwp_init import KernelChain
from dwp_init.priors.base import KernelShape
from training.fits.base import register_fit
from training.fits.vae import FitVAE


@register_fit
@dataclass(frozen=True)
class FitChain(FitVAE):
    """Trains a Markov-chain prior (Eq. 9) in the same way as a kernel VAE.

    Args:
        transitions: T, the number of transitions of the chain.
    """

    transitions: int = 1
    family: ClassVar[str] = "chain"

    def build(self, shape: KernelShape) -> KernelChain:
        return KernelChain(shape, self.transitions, **self._arguments())
