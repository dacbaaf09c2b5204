"""The Markov-chain prior (Eq. 9): a kernel VAE whose latent is the end of a learned chain."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.priors.base import KernelShape, register
from dwp_init.priors.checks import is_int
from dwp_init.priors.dense_networks import DenseNetwork
from dwp_init.priors.latent import Normal, Path, Proposal, Transition
from dwp_init.priors.vae import KernelVAE

_FLOOR = 1e-4  # the least variance of a step
_HALF = math.log(math.expm1(0.5 - _FLOOR))  # the raw value at which the variance of a step is ½


@register
class KernelChain(KernelVAE):
    """Describes kernels by p(w) = ∫ p(w|z_T) ∏ p(zₜ₊₁|zₜ) p(z₀) dz₀ … dz_T over T transitions (Eq. 9).

    Each transition p(zₜ₊₁|zₜ) and each reverse transition r(zₜ|zₜ₊₁, w) is a factorised normal given by a dense network
    of its own; p(z₀) is standard normal, and r(z_T|w) is the encoder of :class:`KernelVAE`. With T = 0 the prior is
    that VAE. Before it is fitted, every transition is z/√2 plus noise of variance ½, which preserves N(0, I) and is its
    own reverse, so the chain also starts as that VAE, and the transitions widen no bound.

    Args:
        kernel_shape: ``(c, *size)``.
        transitions: Number of transitions, T.
        **arguments: Further arguments of :class:`KernelVAE`.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019, Section 3.2 and Appendix A.
    """

    family: ClassVar[str] = "chain"

    def __init__(self, kernel_shape: KernelShape, transitions: int = 1, **arguments: Any) -> None:
        super().__init__(kernel_shape, **arguments)
        if not (is_int(transitions) and 0 <= transitions <= 1000):
            raise ValueError(f"transitions must be a whole number from 0 to 1000; got {transitions!r}")
        self.transitions = transitions
        size, width = self.latent_dim, self.hidden // 2 or 1
        forward = [DenseNetwork(size, width, size) for _ in range(transitions)]
        # no dropout: a path is drawn and weighed by two passes, which must agree
        reverse = [DenseNetwork(size + self.dim, width, size) for _ in range(transitions)]
        for network in (*forward, *reverse):
            nn.init.zeros_(network.heads.weight)
            nn.init.zeros_(network.heads.bias)
        self.forward_steps, self.reverse_steps = nn.ModuleList(forward), nn.ModuleList(reverse)

    def arguments(self) -> dict[str, Any]:
        return {"transitions": self.transitions, **super().arguments()}

    def describe(self) -> str:
        chain = f"A Markov-chain prior (Eq. 9, T = {self.transitions})"
        return f"{chain}: a {self.describe_networks()}. {self.describe_size()}"

    def elbo(self, kernels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to one-sample estimates of the evidence lower bound ``(n,)`` (Appendix A)."""
        if not self.transitions:
            return super().elbo(kernels, generator)
        return self.importance_bound(kernels, 1, generator)

    def log_prob_by_quadrature(self, kernels: Tensor, points: int = 400, width: float = 6.0) -> Tensor:
        """Like :meth:`KernelVAE.log_prob_by_quadrature`, but only for chains without transitions."""
        if self.transitions:
            raise ValueError(f"quadrature takes no transitions; this chain has {self.transitions}: use estimate()")
        return super().log_prob_by_quadrature(kernels, points, width)

    def _reverse(self, white: Tensor) -> Proposal:
        return Path(super()._reverse(white), [_step(network, white) for network in reversed(self.reverse_steps)])

    def _prior(self, white: Tensor) -> Proposal:
        return Path(super()._prior(white), [_step(network) for network in self.forward_steps], backward=True)

    @property
    def _latents(self) -> int:
        return (self.transitions + 1) * self.latent_dim

    def _draw_latent(self, n: int, generator: torch.Generator | None) -> Tensor:
        z = super()._draw_latent(n, generator)
        for network in self.forward_steps:
            z = _step(network)(z).draw(generator)
        return z


def _step(network: nn.Module, white: Tensor | None = None) -> Transition:
    """Returns the map from latents ``(..., n, latent_dim)`` to the distribution of the next ones, given kernels or not.

    Args:
        network: Gives shift and raw variance.
        white: Whitened kernels ``(n, d)``, which a reverse transition sees.
    """

    def step(z: Tensor) -> Normal:
        inputs = z if white is None else torch.cat([z, white.expand(*z.shape[:-1], -1)], -1)
        shift, raw = network(inputs)
        return Normal(z / math.sqrt(2) + shift, (F.softplus(raw + _HALF) + _FLOOR).sqrt())

    return step
