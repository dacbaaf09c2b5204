"""How much the auxiliary bound gives away (Appendix B): its gap to the importance-weighted one, layer by layer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dwp_init.priors.checks import check_count
from dwp_init.priors.latent import Normal
from training.bayes.kl import AuxiliaryKL, entropy
from training.bayes.objective import Objective, kernels_of

REPEATS = 20  # draws of z by which the auxiliary bound is estimated
CHUNK = 512  # kernels at a time


class LayerGap(NamedTuple):
    """Bounds on -KL(q ‖ p) of a layer's kernels, each ``(n,)`` in nats per kernel, at the same draws of w.

    Attributes:
        layer: Its name.
        auxiliary: That of training, with r(z|w; ψ).
        tight: The importance-weighted one.
        error: Monte Carlo standard error of ``tight``.
        blind: The auxiliary bound with r(z|w) = p(z): what training r is worth.
        total: Kernels in the layer, of which n were looked at.
    """

    layer: str
    auxiliary: Tensor
    tight: Tensor
    error: Tensor
    blind: Tensor
    total: int

    @property
    def gap(self) -> Tensor:
        """What the auxiliary bound gives away, ``(n,)``."""
        return self.tight - self.auxiliary


@torch.no_grad()
def bound_gaps(
    objective: Objective, samples: int = 10_000, kernels: int | None = None, generator: torch.Generator | None = None
) -> list[LayerGap]:
    """Estimates the gap of every layer, a few kernels at a time.

    The proposal is defensive, an even mixture of the reverse model, of the same at twice its scale and of p(z), as in
    :meth:`dwp_init.KernelVAE.estimate`: a reverse model that is wrong about a kernel then shows as a gap.

    Args:
        objective: A trained one.
        samples: K, latents per kernel.
        kernels: Random kernels of each layer to look at, at the most; all if none is given.
        generator: Source of randomness on the network's device; PyTorch's global one by default.

    Raises:
        ValueError: A layer's term is no :class:`training.bayes.AuxiliaryKL`: it gives nothing away.
    """
    check_count(samples=samples)
    if kernels is not None:
        check_count(kernels=kernels)
    found = []
    for name, term in zip(objective.layers, objective.terms, strict=True):
        if not isinstance(term, AuxiliaryKL):
            raise ValueError(f"layer {name!r} has the term {type(term).__name__}, which bounds nothing: no gap")
        q = kernels_of(objective.network.get_submodule(name), term)
        total = len(q.loc)
        picked = torch.randperm(total, generator=generator, device=q.loc.device)[:kernels]
        found.append(_layer_gap(name, term, Normal(q.loc[picked], q.scale[picked]), total, samples, generator))
    return found


def _layer_gap(
    name: str, term: AuxiliaryKL, q: Normal, total: int, samples: int, generator: torch.Generator | None
) -> LayerGap:
    prior, drawn, own = term.prior, q.draw(generator), entropy(q)
    auxiliary, blind = (
        torch.cat([_mean_bound(bound, part, generator) for part in drawn.split(CHUNK)])
        for bound in (prior.elbo, prior.blind_elbo)
    )
    tight = prior.estimate(drawn, samples, generator)
    return LayerGap(name, own + auxiliary, own + tight.log_prob, tight.error, own + blind, total)


def _mean_bound(bound: Callable[..., Tensor], kernels: Tensor, generator: torch.Generator | None) -> Tensor:
    return sum(bound(kernels, generator) for _ in range(REPEATS)) / REPEATS
