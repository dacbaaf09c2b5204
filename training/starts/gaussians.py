"""A start from Gaussians: one for each prior and depth, with the exact mean and covariance of the prior's mixture."""

from collections.abc import Mapping
from dataclasses import replace

import torch

import dwp_init
from dwp_init.priors import GaussianMixture, MixtureByDepth
from dwp_init.rules import PriorLike
from dwp_init.sets import SETS, PriorSet, SetMember
from training.starts.base import TINY_IMAGENET, Draw, Start, add_start
from training.starts.natural import NATURAL_V1, as_applied

GAUSSIAN_BY_DEPTH = "Gaussian by depth"


def as_gaussians(like: PriorLike) -> PriorLike:
    """Replaces a mixture, or each mixture of a set, by the Gaussians of its moments, one for each depth.

    Args:
        like: Name, folder or object of a mixture, or of a set of mixtures.

    Raises:
        ValueError: A prior is not a mixture.
    """
    chosen = SETS.get(like, like) if isinstance(like, str) else like
    if not isinstance(chosen, PriorSet):
        return _as_gaussian(chosen)
    stem, dense, depthwise = (tuple(map(_as_gaussian, each)) for each in (chosen.stem, chosen.dense, chosen.depthwise))
    return replace(chosen, stem=stem, dense=dense, depthwise=depthwise, name=f"{chosen.name}, Gaussian")


@torch.no_grad()
def same_moments(mixture: GaussianMixture) -> GaussianMixture:
    """Returns the mixture of one component that has the mean and the covariance of a mixture, both exactly."""
    parts = {name: tensor.double() for name, tensor in mixture.state_dict().items()}
    share, loc, tril = (parts[name] for name in ("weight", "loc", "scale_tril"))
    squares = share.new_tensor(mixture.scales).square()
    mean = share.sum(1) @ loc
    covariance = torch.einsum("k,kij->ij", share @ squares, tril @ tril.mT)
    covariance += torch.einsum("k,ki,kj->ij", share.sum(1), loc, loc) - mean.outer(mean)
    half = parts["whitening.basis"] * parts["whitening.scale"]
    variances, basis = torch.linalg.eigh(half @ covariance @ half.mT)
    found = GaussianMixture(mixture.kernel_shape, 1)
    found.whitening.loc.copy_(parts["whitening.loc"] + half @ mean)
    found.whitening.basis.copy_(basis)
    found.whitening.scale.copy_(variances.sqrt())
    return found


def _as_gaussian(given: SetMember) -> dwp_init.Prior:
    prior = given if isinstance(given, dwp_init.Prior) else dwp_init.load_prior(given)
    if isinstance(prior, MixtureByDepth):
        each = [prior.at(depth) for depth in prior.depths]
        return MixtureByDepth.stack(prior.depths, list(map(same_moments, each)))
    if not isinstance(prior, GaussianMixture):
        raise ValueError(
            f"{GAUSSIAN_BY_DEPTH!r} has the moments of mixtures; got a prior of the family {prior.family!r}: fit a "
            "mixture instead, or leave the start out"
        )
    return same_moments(prior)


def from_moments(draw: Draw) -> Mapping[str, float]:
    """Draws and scales from the Gaussians as ``natural-v1`` does from its mixtures."""
    return as_applied(draw, prior=list(map(as_gaussians, draw.priors)), seed=draw.other_seed)


add_start(
    Start(
        GAUSSIAN_BY_DEPTH,
        "Gaussian by depth",
        "#b9770e",
        ("priors",),
        from_moments,
        trained_on=TINY_IMAGENET,
        keeps_rest=True,
        priors=(NATURAL_V1,),
    )
)
