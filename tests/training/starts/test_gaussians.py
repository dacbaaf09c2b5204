from collections.abc import Callable

import pytest
import torch
from torch import nn

from dwp_init import SETS, Gaussian, GaussianMixture, MixtureByDepth, PriorSet, load_prior
from dwp_init.convolutions import find_layers
from training.starts.gaussians import as_gaussians, same_moments

Make = Callable[..., nn.Module]


def _covariance(gaussian: GaussianMixture) -> torch.Tensor:
    half = gaussian.whitening.basis * gaussian.whitening.scale
    return half @ half.mT


def test_moments_of_a_mixture_in_closed_form() -> None:
    """Means ± m with shares ¾ and ¼, covariance I at the strengths 1 and 2, then an affine map."""
    mixture, m = GaussianMixture((1, 2, 2), 2, (1.0, 2.0)), torch.tensor([1.0, 0.0, 2.0, -1.0])
    mixture.weight.copy_(torch.tensor([[0.5, 0.25], [0.125, 0.125]]))
    mixture.loc.copy_(torch.stack([m, -m]))
    scale, basis = torch.tensor([1.0, 2.0, 3.0, 0.5]), torch.eye(4)[[2, 0, 3, 1]]
    mixture.whitening.loc.fill_(5)
    mixture.whitening.scale.copy_(scale)
    mixture.whitening.basis.copy_(basis)
    found, half = same_moments(mixture), basis * scale
    white = (0.625 + 4 * 0.375) * torch.eye(4) + (1 - 0.5**2) * m.outer(m)
    torch.testing.assert_close(found.whitening.loc, 5 + half @ (m / 2))
    torch.testing.assert_close(_covariance(found), half @ white @ half.mT)
    assert found.components == 1 and torch.equal(found.loc, torch.zeros(1, 4)) and found.scales == (1.0,)


@pytest.mark.parametrize("name", ["tinyimagenet-dw7x7", "tinyimagenet-3x3"])
def test_its_draws_have_the_moments_of_the_priors_at_each_depth(name: str) -> None:
    prior, gaussian = load_prior(name), as_gaussians(name)
    assert isinstance(prior, MixtureByDepth) and isinstance(gaussian, MixtureByDepth)
    assert gaussian.depths == prior.depths
    for depth in (0.0, 1.0):
        theirs, ours = (
            each.at(depth).sample(100_000, torch.Generator().manual_seed(seed)).flatten(1)
            for seed, each in enumerate((prior, gaussian))
        )
        scale = theirs.std(0)
        assert ((ours.mean(0) - theirs.mean(0)).abs() / scale).max() < 0.03
        assert ((ours.T.cov() - theirs.T.cov()).abs() / scale.outer(scale)).max() < 0.05


def test_a_set_keeps_its_kinds_and_other_families_are_refused(gaussian: Callable[..., Gaussian]) -> None:
    found = as_gaussians("natural-v1")
    assert isinstance(found, PriorSet) and found.orthogonal
    shapes = [(kind, prior.kernel_shape) for kind, prior in found]
    assert shapes == [(kind, load_prior(name).kernel_shape) for kind, name in SETS["natural-v1"]]
    with pytest.raises(ValueError, match="has the moments of mixtures; got a prior of the family 'gaussian': fit a"):
        as_gaussians(gaussian(3))


def test_layers_have_the_response_of_natural_and_other_draws(make: Make) -> None:
    drawn, gaussian = (make("mobilenet", start, priors=["natural"]) for start in ("natural-v1", "Gaussian by depth"))
    assert gaussian.drawn == drawn.drawn == 1
    for ours, theirs in zip(*(find_layers(made, lambda named: True) for made in (gaussian, drawn)), strict=True):
        if ours.is_spatial:
            found, expected = (layer.measure(layer.weight.read()).response for layer in (ours, theirs))
            assert found == pytest.approx(expected, rel=1e-4)
            alike = torch.cosine_similarity(ours.weight.read().flatten(), theirs.weight.read().flatten(), dim=0)
            assert abs(alike.item()) < 0.5
