"""The gap between the auxiliary bound and the importance-weighted one, layer by layer (Appendix B)."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dwp_init.priors.checks import check_count
from dwp_init.priors.latent import Normal
from training.bayes.kl import AuxiliaryKL, entropy
from training.bayes.objective import Objective, kernels_of

REPEATS = 20  # draws of z by which the auxiliary bound is estimated
_CHUNK = 512  # kernels at a time


class LayerGap(NamedTuple):
    """Bounds on -KL(q ‖ p) of a layer's kernels, each ``(n,)`` in nats per kernel, at the same draws of w.

    Attributes:
        layer: Name of the layer.
        auxiliary: The bound used in training, with r(z|w; ψ).
        tight: The importance-weighted bound.
        error: Monte Carlo standard error of ``tight``.
        blind: The auxiliary bound with r(z|w) = p(z), which shows what is gained by training r.
        total: Number of kernels in the layer, of which n were used.
    """

    layer: str
    auxiliary: Tensor
    tight: Tensor
    error: Tensor
    blind: Tensor
    total: int

    @property
    def gap(self) -> Tensor:
        """The distance of the auxiliary bound below the importance-weighted one, ``(n,)``."""
        return self.tight - self.auxiliary


@torch.no_grad()
def bound_gaps(
    objective: Objective, samples: int = 10_000, kernels: int | None = None, generator: torch.Generator | None = None
) -> list[LayerGap]:
    """Estimates the gap of every layer, a few kernels at a time.

    The proposal is defensive, an even mixture of the reverse model, of the same at twice its scale and of p(z), as in
    :meth:`dwp_init.KernelVAE.estimate`, so that a reverse model that is wrong about a kernel causes a gap.

    Args:
        objective: A trained objective.
        samples: K, the number of latents per kernel.
        kernels: Maximum number of random kernels per layer; all by default.
        generator: Source of randomness on the network's device; PyTorch's global one by default.

    Raises:
        ValueError: A layer's term is not a :class:`training.bayes.AuxiliaryKL`, so there is no gap.
    """
    check_count(samples=samples)
    if kernels is not None:
        check_count(kernels=kernels)
    found = []
    for name, (layer, term) in zip(objective.layers, objective.pairs(), strict=True):
        if not isinstance(term, AuxiliaryKL):
            raise ValueError(
                f"layer {name!r} has the term {type(term).__name__}, which is not a bound, so it has no gap"
            )
        q = kernels_of(layer, term)
        total = len(q.loc)
        picked = torch.randperm(total, generator=generator, device=q.loc.device)[:kernels]
        found.append(_layer_gap(name, term, Normal(q.loc[picked], q.scale[picked]), total, samples, generator))
    return found


def _layer_gap(
    name: str, term: AuxiliaryKL, q: Normal, total: int, samples: int, generator: torch.Generator | None
) -> LayerGap:
    prior, drawn, own = term.prior, q.draw(generator), entropy(q)
    auxiliary, blind = (
        torch.cat([_mean_bound(bound, part, generator) for part in drawn.split(_CHUNK)])
        for bound in (prior.elbo, prior.blind_elbo)
    )
    tight = prior.estimate(drawn, samples, generator)
    return LayerGap(name, own + auxiliary, own + tight.log_prob, tight.error, own + blind, total)


class _Bound(Protocol):
    def __call__(self, kernels: Tensor, generator: torch.Generator | None) -> Tensor: ...


def _mean_bound(bound: _Bound, kernels: Tensor, generator: torch.Generator | None) -> Tensor:
    return sum((bound(kernels, generator) for _ in range(REPEATS)), start=torch.zeros(())) / REPEATS
