"""Gaussian mixtures: densities and fits against known answers."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dwp_init.priors import Gaussian, GaussianMixture
from tests.priors.families import SMALL, bent, normal, seeded


def two(n, seed=0):
    """Draws from a mixture of 0.3 and 0.7, and returns it too."""
    loc = torch.tensor([[2.0, 0.0, 1.0], [-1.0, 0.5, 0.0]]).double()
    tril = torch.tensor([[[0.5, 0, 0], [0.3, 0.4, 0], [0, -0.2, 0.6]], [[0.8, 0, 0], [-0.4, 0.5, 0], [0, 0, 0.3]]])
    weight = torch.tensor([0.3, 0.7]).double()
    torch.manual_seed(seed)
    truth = MixtureSameFamily(Categorical(weight), MultivariateNormal(loc, scale_tril=tril.double()))
    return truth.sample((n,)).view(n, 1, 1, 3), truth


def test_mixture_recovers_two_components():
    kernels, truth = two(20_000)
    prior = GaussianMixture((1, 1, 3), 2).double().fit_(kernels, 1e-3, tolerance=1e-7, generator=seeded(2))
    order = prior.weight[:, 0].argsort()
    back = prior.whitening.basis * prior.whitening.scale
    factor = back @ prior.scale_tril[order]
    assert (prior.weight[order, 0] - truth.mixture_distribution.probs).abs().max() < 0.012
    found, parts = prior.whitening.inverse(prior.loc[order]), truth.component_distribution
    torch.testing.assert_close(found, parts.loc, rtol=0, atol=0.04)
    torch.testing.assert_close(factor @ factor.mT, parts.covariance_matrix, rtol=0, atol=0.04)
    fresh, _ = two(500, seed=1)
    torch.testing.assert_close(prior.log_prob(fresh), truth.log_prob(fresh.flatten(1)), rtol=0, atol=0.3)


def test_mixture_is_the_sum_of_its_components():
    prior = SMALL["mixture"](bent(60))
    back = prior.whitening.basis * prior.whitening.scale
    loc, factor = prior.whitening.inverse(prior.loc), back @ prior.scale_tril
    kernels, total = bent(20, seed=1).flatten(1), 0
    for k, s in ((k, s) for k in range(3) for s in range(2)):
        covariance = prior.scales[s] ** 2 * factor[k] @ factor[k].T
        total = total + prior.weight[k, s] * MultivariateNormal(loc[k], covariance).log_prob(kernels).exp()
    torch.testing.assert_close(prior.log_prob(kernels.view(-1, 1, 1, 2)), total.log())
    assert prior.weight.sum().item() == pytest.approx(1) and (prior.weight > 0).all()


def test_each_step_of_a_fit_gains_likelihood():
    kernels = bent(2000)
    found = [
        GaussianMixture((1, 1, 2), 4, (0.5, 1.0))
        .double()
        .fit_(kernels, 1e-3, steps=steps, tolerance=1e-9, generator=seeded())
        .log_prob(kernels)
        .mean()
        .item()
        for steps in (1, 2, 4, 16, 64)
    ]
    assert all(less < more + 1e-4 for less, more in pairwise(found)) and found[-1] > found[0] + 0.05


def test_one_component_is_the_gaussian():
    kernels, fresh = bent(500), bent(100, seed=1)
    gaussian = Gaussian((1, 1, 2)).double().fit_(kernels)
    one = GaussianMixture((1, 1, 2), 1).double().fit_(kernels, 1e-9)
    torch.testing.assert_close(one.log_prob(fresh), gaussian.log_prob(fresh), rtol=0, atol=1e-5)
    assert one.fit_(kernels, 500.0).log_prob(fresh).allclose(gaussian.log_prob(fresh), atol=1e-5)  # shrunk to the same


def test_shrinkage_leads_to_the_gaussian():
    kernels = (normal(400, 9) @ normal(9, 9, seed=1)).view(-1, 1, 3, 3)
    fresh = (normal(1000, 9, seed=2) @ normal(9, 9, seed=1)).view(-1, 1, 3, 3)
    gaussian = Gaussian((1, 3, 3)).double().fit_(kernels).log_prob(fresh).mean().item()
    found = [
        GaussianMixture((1, 3, 3), 3)
        .double()
        .fit_(kernels, shrinkage, steps=2000, tolerance=1e-6, generator=seeded())
        .log_prob(fresh)
        .mean()
        .item()
        for shrinkage in (1.0, 30.0, 9e5)
    ]
    gaps = [abs(gaussian - value) for value in found]
    assert gaps[2] < 0.02 and gaps[0] > 5 * gaps[2] and gaps[0] > gaps[1]


def test_scales_fit_kernels_of_several_strengths():
    mix, strength = normal(4, 4, seed=1), torch.tensor([0.3, 1.5]).double()
    covariances = strength[:, None, None].square() * (mix.T @ mix)
    truth = MixtureSameFamily(
        Categorical(torch.tensor([0.6, 0.4]).double()), MultivariateNormal(torch.zeros(2, 4).double(), covariances)
    )
    torch.manual_seed(0)
    kernels, fresh = truth.sample((4000,)).view(-1, 1, 2, 2), truth.sample((4000,)).view(-1, 1, 2, 2)
    plain = GaussianMixture((1, 2, 2), 1).double().fit_(kernels, 1e-3)
    scaled = GaussianMixture((1, 2, 2), 1, (0.2, 1.0)).double().fit_(kernels, 1e-3, tolerance=1e-7)
    exact = truth.log_prob(fresh.flatten(1)).mean()
    assert plain.log_prob(fresh).mean() < exact - 0.3
    assert abs(scaled.log_prob(fresh).mean() - exact) < 0.01
    assert (scaled.weight[0] - torch.tensor([0.6, 0.4])).abs().max() < 0.03


def test_average_is_the_mean_of_densities():
    kernels, fresh = bent(300), bent(50, seed=1)
    parts = [
        GaussianMixture((1, 1, 2), n, (0.5, 1.0)).double().fit_(kernels, 2.0, generator=seeded(n)) for n in (2, 3, 5)
    ]
    average = GaussianMixture.average([part.float() for part in parts])
    assert average.arguments() == {"components": 10, "scales": [0.5, 1.0]}
    expected = torch.stack([part.log_prob(fresh) for part in parts]).logsumexp(0) - math.log(3)
    torch.testing.assert_close(average.log_prob(fresh), expected, rtol=0, atol=1e-5)
    average.check()
    one = GaussianMixture.average(parts[:1])
    assert torch.equal(one.log_prob(fresh), parts[0].log_prob(fresh))
    one.weight.zero_()
    assert parts[0].weight.sum() > 0  # its own tensors


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "an average needs at least one mixture; got none"),
        ([((1, 1, 2), (1.0,)), ((1, 2, 1), (1.0,))],
         r"one kernel shape and scales; got \(1, 1, 2\) with \(1.0,\) and \(1, 2, 1\) with \(1.0,\)"),
        ([((1, 1, 2), (1.0,)), ((1, 1, 2), (0.5, 1.0))],
         r"one kernel shape and scales; got \(1, 1, 2\) with \(1.0,\) and \(1, 1, 2\) with \(0.5, 1.0\)"),
    ],
)  # fmt: skip
def test_average_errors(parts, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture.average([GaussianMixture(shape, 2, scales) for shape, scales in parts])


def test_average_of_fits_to_other_kernels():
    parts = [GaussianMixture((1, 1, 2), 2).fit_(bent(50, seed)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="needs mixtures fitted to the same kernels; their whitenings differ"):
        GaussianMixture.average(parts)


def test_a_fit_depends_on_its_generator_alone():
    kernels, state = bent(200), torch.get_rng_state()
    fits = [GaussianMixture((1, 1, 2), 4, (0.5, 1.0)).fit_(kernels, generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(fits[0].buffers(), fits[1].buffers(), strict=True))
    assert not torch.equal(fits[0].loc, fits[2].loc)


@pytest.mark.parametrize("scales", [(1.0,), (0.3, 1.0, 3.0)])
def test_mixture_of_few_kernels_and_of_kernels_that_repeat(scales):
    for kernels in (normal(60, 49), normal(3, 49).repeat(20, 1), normal(60, 1) * normal(1, 49, seed=1)):
        prior = GaussianMixture((1, 7, 7), 8, scales).fit_(kernels.view(-1, 1, 7, 7), generator=seeded())
        prior.check()
        drawn = prior.sample(20, seeded())
        assert prior.log_prob(drawn).isfinite().all() and prior.log_prob(kernels.view(-1, 1, 7, 7)).isfinite().all()
        assert drawn.norm(dim=(2, 3)).mean().item() == pytest.approx(kernels.norm(dim=1).mean().item(), rel=0.5)


@pytest.mark.parametrize(
    ("arguments", "fit", "message"),
    [
        ({"components": 8}, {}, "8 components need at least as many kernels; got 7"),
        ({"components": 2}, {"shrinkage": 0}, "shrinkage must be a number above 0 and below 1,000,000; got 0"),
        ({"components": 2}, {"shrinkage": math.nan}, "shrinkage must be a number above 0 .*; got nan"),
        *(({"components": value}, {}, f"components must be a whole number from 1 to 1048576; got {value!r}")
          for value in (0, -1, 2.0, True, "4")),
        *(({"scales": value}, {}, r"scales must be one or more positive numbers; got") for value in ((), [], 1.0, "1")),
        *(({"scales": (1.0, value)}, {}, f"scales must be a number above 0 and below 1,000,000; got {value!r}")
          for value in (0, -0.5, math.nan, math.inf, "x", None, True)),
    ],
)  # fmt: skip
def test_mixture_errors(arguments, fit, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture((1, 1, 2), **arguments).fit_(bent(7), **fit)


def test_average_keeps_the_dtype():
    parts = [GaussianMixture((1, 1, 2), 2).double().fit_(bent(60), generator=seeded(seed)) for seed in (0, 1)]
    average = GaussianMixture.average(parts)
    assert average.dtype == torch.float64 and average.sample(3).dtype == torch.float64
    expected = torch.stack([part.log_prob(bent(5, 1)) for part in parts]).logsumexp(0) - math.log(2)
    torch.testing.assert_close(average.log_prob(bent(5, 1)), expected)


def test_a_covariance_without_an_inverse_names_the_shrinkage():
    kernels = normal(200, 1, 5, 5).float()
    with pytest.raises(ValueError, match=r"the covariance of component \d+ has no inverse; raise shrinkage=1e-15"):
        GaussianMixture((1, 5, 5), 40).fit_(kernels, 1e-15, generator=seeded())


def test_scales_and_steps_have_limits():
    with pytest.raises(ValueError, match=r"scales must be 0.0001 or more; got 1e-30"):
        GaussianMixture((1, 1, 2), 2, (1e-30,))
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 1048576; got 0"):
        GaussianMixture((1, 1, 2), 2).fit_(bent(60).float(), steps=0)
