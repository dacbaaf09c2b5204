"""Mixtures by depth."""

import pytest
import torch

from dwp_init import save_prior
from dwp_init.priors import Gaussian, GaussianMixture, MixtureByDepth
from tests.priors.families import bent, by_depth, seeded


def test_a_mixture_by_depth_is_each_depths_own_and_their_average():
    near, far = bent(60), 3 * bent(60, seed=1)
    prior, points = by_depth(near, far), bent(20, seed=2)
    first, last = (GaussianMixture((1, 1, 2), 2, (0.5, 1.5)).double().fit_(k, generator=seeded()) for k in (near, far))
    each = torch.stack([first.log_prob(points), last.log_prob(points)])
    torch.testing.assert_close(prior.log_prob(points), each.exp().mean(0).log())
    for depth, alone in [(0, first), (0.5, first), (0.51, last), (1, last)]:
        torch.testing.assert_close(prior.at(depth).log_prob(points), alone.log_prob(points))
    assert Gaussian((1, 1, 2)).at(0.3).family == "gaussian"
    for wrong in (2, -1, float("nan"), "0.5", None, True):
        for each in (prior, first):
            with pytest.raises(ValueError, match=f"depth must be a number from 0, .*, to 1, the last; got {wrong!r}"):
                each.at(wrong)


@pytest.mark.parametrize(
    ("depths", "components", "message"),
    [
        ((), (), "each depth needs its number of components"),
        ((0, 1), (2,), "each depth needs its number of components"),
        ((0, 1.5), (2, 2), "depths must be numbers from 0 to 1"),
        ((0.5, 0.5), (2, 2), "depths must ascend"),
        ("01", (2, 2), "depths and components must be lists"),
        ((0, True), (2, 2), "depths must be numbers from 0 to 1"),
        ((0, 1), (2, 0), "components must be a whole number from 1"),
    ],
)
def test_mixture_by_depth_errors(depths, components, message):
    with pytest.raises(ValueError, match=message):
        MixtureByDepth((1, 3, 3), depths, components)


def test_stacked_mixtures_must_be_alike():
    with pytest.raises(ValueError, match="the mixtures must have one kernel shape and the same scales"):
        MixtureByDepth.stack((0, 1), [GaussianMixture((1, 3, 3)), GaussianMixture((1, 5, 5))])
    with pytest.raises(ValueError, match="the mixtures must have one kernel shape"):
        MixtureByDepth.stack((), [])


def test_a_broken_mixture_is_named_by_its_depth(tmp_path):
    prior = MixtureByDepth((1, 3, 3), (0, 0.25), (2, 2))
    prior.mixtures[1].weight[0] = 2
    with pytest.raises(ValueError, match=r"the mixture of depth 0\.25: weight must be 0 or more and sum to 1"):
        save_prior(prior, tmp_path / "prior")
