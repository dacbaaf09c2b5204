"""The gap between the bounds used in training and log p(w), layer by layer (Appendix B)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from dwp_init.bayes.kl import ScaledKL, entropy
from dwp_init.bayes.objective import Objective, kernels_of
from dwp_init.bayes.prior_kl import LatentKL
from dwp_init.priors.checks import check_count
from dwp_init.priors.latent import Normal
from dwp_init.priors.vae import KernelVAE, LatentProposal
from dwp_init.split import split

REPEATS = 20  # estimates of each bound except the importance-weighted one, whose mean is reported
_CHUNK = 512  # kernels at a time


class LayerGap(NamedTuple):
    """Bounds on -KL(q ‖ p) of a layer's kernels, each ``(n,)`` in nats per kernel, at the same draws of w.

    Attributes:
        layer: Name of the layer.
        auxiliary: The bound of Algorithm 1, with r(z|w; ψ).
        tight: The importance-weighted bound.
        error: Monte Carlo standard error of ``tight``.
        blind: The auxiliary bound with r(z|w) = p(z), which shows what is gained by training r.
        total: Number of kernels in the layer, of which n were used.
        semi_implicit: The bounds of :class:`dwp_init.bayes.SemiImplicitKL`, by proposal and K.
    """

    layer: str
    auxiliary: Tensor
    tight: Tensor
    error: Tensor
    blind: Tensor
    total: int
    semi_implicit: Mapping[tuple[LatentProposal, int], Tensor] = MappingProxyType({})

    @property
    def gap(self) -> Tensor:
        """The distance of the auxiliary bound below the importance-weighted one, ``(n,)``."""
        return self.tight - self.auxiliary


@torch.no_grad()
def bound_gaps(
    objective: Objective,
    samples: int = 10_000,
    kernels: int | None = None,
    generator: torch.Generator | None = None,
    *,
    draws: Sequence[int] = (),
) -> list[LayerGap]:
    """Estimates the gap of every layer, a few kernels at a time.

    The proposal of the importance-weighted bound is defensive, an even mixture of the reverse model, of the same at
    twice its scale and of p(z), as in :meth:`dwp_init.KernelVAE.estimate`, so that a reverse model that is wrong about
    a kernel causes a gap.

    Args:
        objective: A trained objective.
        samples: Number of latents per kernel of the importance-weighted bound.
        kernels: Maximum number of random kernels per layer; all by default.
        generator: Source of randomness on the network's device; PyTorch's global one by default.
        draws: Each K at which the semi-implicit bounds are estimated too.

    Raises:
        ValueError: A layer's term is not a :class:`dwp_init.bayes.LatentKL`, nor one at a scale, so there is no gap.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model)
        >>> term = bayes.kl_from(dwp_init.load_prior("notmnist-5x5-vae"))
        >>> (found,) = bayes.bound_gaps(bayes.Objective(model, term), samples=100)
        >>> found.layer, found.gap.shape
        ('0', torch.Size([8]))
    """
    check_count(samples=samples)
    for count in draws:
        check_count(draws=count)
    if kernels is not None:
        check_count(kernels=kernels)
    found: list[LayerGap] = []
    for name, (layer, given) in zip(objective.layers, objective.pairs(), strict=True):
        term, scale = (given.term, given.scale) if isinstance(given, ScaledKL) else (given, 1.0)
        if not isinstance(term, LatentKL):
            raise ValueError(
                f"layer {name!r} has the term {type(term).__name__}, which is not a bound, so it has no gap"
            )
        q = Normal(*(part / scale for part in kernels_of(layer, term)))
        total = len(q.loc)
        picked = torch.randperm(total, generator=generator, device=q.loc.device)[:kernels]
        some = Normal(q.loc[picked], q.scale[picked])
        found.append(_layer_gap(name, term.prior, some, total, samples, draws, generator))
    return found


def _layer_gap(
    name: str,
    prior: KernelVAE,
    q: Normal,
    total: int,
    samples: int,
    draws: Sequence[int],
    generator: torch.Generator | None,
) -> LayerGap:
    own, drawn = entropy(q), q.draw(generator)
    auxiliary, blind = (own + _mean_bound(bound, drawn, generator) for bound in (prior.elbo, prior.blind_elbo))
    tight = prior.estimate(drawn, samples, generator)
    proposals: tuple[LatentProposal, ...] = get_args(LatentProposal)
    semi_implicit: dict[tuple[LatentProposal, int], Tensor] = {
        (proposal, count): own
        + _mean_bound(partial(prior.importance_bound, samples=count, proposal=proposal), drawn, generator)
        for proposal in proposals
        for count in draws
    }
    return LayerGap(name, auxiliary, own + tight.log_prob, tight.error, blind, total, semi_implicit)


def _mean_bound(bound: Callable[..., Tensor], kernels: Tensor, generator: torch.Generator | None) -> Tensor:
    parts = [
        sum((bound(part, generator=generator) for _ in range(REPEATS)), start=torch.zeros(())) / REPEATS
        for part in split(kernels, _CHUNK)
    ]
    return torch.cat(parts)
