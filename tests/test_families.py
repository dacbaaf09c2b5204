"""Truth tests of the families: their densities against quadrature, their draws and their fits against known answers."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import dwp_init
from dwp_init import load_prior, save_prior
from dwp_init.priors import (
    FAMILIES,
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def bent(n, seed=0):
    """Draws kernels ``(n, 1, 1, 2)`` along a parabola, of scale 0.1."""
    x, y = normal(2, n, seed=seed)
    return 0.1 * torch.stack([1 + x, 0.7 * x.square() + 0.4 * y], 1).view(n, 1, 1, 2)


def perturbed(prior, kernels, size):
    prior.whitening.fit_(kernels.flatten(1))
    with torch.no_grad():
        for i, parameter in enumerate(prior.parameters()):
            parameter += size * normal(*parameter.shape, seed=i)
    return prior


def by_depth(*layers):
    mixtures = [GaussianMixture((1, 1, 2), 2, (0.5, 1.5)).double().fit_(k, generator=seeded()) for k in layers]
    return MixtureByDepth.stack([i / (len(layers) - 1) for i in range(len(layers))], mixtures).double()


SMALL = {
    "gaussian": lambda k: Gaussian((1, 1, 2)).double().fit_(k),
    "mixture": lambda k: GaussianMixture((1, 1, 2), 3, (0.5, 1.5)).double().fit_(k, generator=seeded()),
    "mixture-by-depth": lambda k: by_depth(k[: len(k) // 2], 3 * k[len(k) // 2 :]),
    "kde": lambda k: KernelDensity((1, 1, 2), count=len(k)).double().fit_(k),
    "flow": lambda k: perturbed(Flow((1, 1, 2), transforms=2, hidden=8).double(), k, 0.3),
    "flow-nsf": lambda k: perturbed(Flow((1, 1, 2), "nsf", 2, 8, coupling=True).double(), k, 0.3),
    "autoregressive": lambda k: perturbed(Autoregressive((1, 1, 2), hidden=8, mixtures=2).double(), k, 0.5),
    "vae": lambda k: perturbed(KernelVAE((1, 1, 2), latent_dim=1, hidden=8, min_scale=0.3).double(), k, 0.5),
}


@pytest.fixture(scope="module", params=SMALL)
def gridded(request):
    """Returns a prior over 2 numbers, the points of a grid over its draws ``(m, m, 2)``, and their probabilities."""
    torch.manual_seed(0)
    prior = SMALL[request.param](bent(60)).eval()
    drawn = prior.sample(10_000, seeded(9)).flatten(1)
    size = 480 if prior.exact else 120
    axes = [
        torch.linspace(middle - 5 * (middle - low), middle + 5 * (high - middle), size, dtype=torch.float64)
        for low, middle, high in drawn.quantile(torch.tensor([0.01, 0.5, 0.99]).double(), dim=0).T
    ]
    points = torch.cartesian_prod(*axes)
    density = prior.log_prob if prior.exact else lambda kernels: prior.log_prob_by_quadrature(kernels, 80)
    with torch.no_grad():
        log_prob = density(points.view(-1, 1, 1, 2))
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    return prior, points.view(size, size, 2), (log_prob.exp() * cell).view(size, size)


def moments(points, share):
    mean = torch.einsum("ab,abi->i", share, points)
    return mean, torch.einsum("ab,abi,abj->ij", share, points - mean, points - mean)


def test_every_exact_family_is_asked():
    assert {SMALL[name](bent(60)).family for name in SMALL} == {*FAMILIES} - {"chain"}  # tests/test_latent.py asks it


def test_density_integrates_to_one(gridded):
    prior, points, share = gridded
    assert share.sum().item() == pytest.approx(1, abs=2e-3)
    assert max(edge.sum() for edge in (share[0], share[-1], share[:, 0], share[:, -1])) < 1e-6
    mean, covariance = moments(points, share)
    cell = (points[1, 0, 0] - points[0, 0, 0]) * (points[0, 1, 1] - points[0, 0, 1])
    log_ratio = (share / cell).clamp_min(1e-300).log() - MultivariateNormal(mean, covariance).log_prob(points)
    divergence = (share * log_ratio).sum().item()
    assert divergence == pytest.approx(0, abs=1e-6) if prior.family == "gaussian" else divergence > 0.02


def test_draws_have_the_mean_and_covariance_of_the_density(gridded):
    prior, points, share = gridded
    mean, covariance = moments(points, share)
    drawn = prior.sample(100_000, seeded()).flatten(1)
    centred = drawn - mean
    products = torch.stack([centred[:, 0] ** 2, centred[:, 1] ** 2, centred[:, 0] * centred[:, 1]], 1)
    error = torch.cat([drawn.std(0), products.std(0)]) / math.sqrt(len(drawn))
    expected = torch.stack([mean[0], mean[1], covariance[0, 0], covariance[1, 1], covariance[0, 1]])
    found = torch.cat([drawn.mean(0), products.mean(0)])
    assert ((found - expected).abs() / error).max() < 4.5


def test_draws_fill_the_plane_as_the_density_says(gridded):
    prior, points, share = gridded
    drawn, width = prior.sample(100_000, seeded(1)).flatten(1), 12 if prior.exact else 6  # grid points along a cell
    size = len(points) // width
    step = torch.stack([points[1, 0, 0] - points[0, 0, 0], points[0, 1, 1] - points[0, 0, 1]])
    place = ((drawn - points[0, 0]) / step + 0.5).floor().long().div(width, rounding_mode="floor").clamp(0, size - 1)
    found = torch.bincount(place[:, 0] * size + place[:, 1], minlength=size * size)
    expected = len(drawn) * share.view(size, width, size, width).sum((1, 3)).flatten()
    many = expected > 30
    assert many.sum() > 30 and expected[many].sum() > 0.95 * len(drawn)
    assert ((found - expected)[many].abs() / expected[many].sqrt()).max() < 5
    assert abs((found - expected)[~many].sum()) < 5 * expected[~many].sum().sqrt()


MIDDLE = {
    "gaussian": lambda k: Gaussian((1, 3, 2)).double().fit_(k),
    "mixture": lambda k: GaussianMixture((1, 3, 2), 3, (0.5, 1.5)).double().fit_(k, generator=seeded()),
    "kde": lambda k: KernelDensity((1, 3, 2), count=len(k)).double().fit_(k),
    "flow": lambda k: perturbed(Flow((1, 3, 2), transforms=2, hidden=8).double(), k, 0.15),
    "autoregressive": lambda k: perturbed(Autoregressive((1, 3, 2), hidden=8, mixtures=2).double(), k, 0.3),
}


@pytest.mark.parametrize("family", MIDDLE)
def test_draws_and_density_satisfy_steins_identities_in_six_dimensions(family):
    torch.manual_seed(0)
    kernels = (normal(80, 6) @ normal(6, 6, seed=1) + normal(6, seed=2)).exp().clamp_max(3).view(-1, 1, 3, 2)
    prior = MIDDLE[family](kernels).eval()
    drawn = prior.sample(20_000, seeded()).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(drawn).sum(), drawn)
    white = prior.whitening(drawn.detach().flatten(1))
    score = torch.func.vmap(torch.func.jacrev(lambda u: prior.whitening.inverse(u[None])[0]))(white).mT @ score.view(
        -1, 6, 1
    )
    products = torch.cat([score, score * white[:, None] + torch.eye(6)], 2)  # E ∂log p = 0, E u ∂log p = -I
    error = products.std(0) / math.sqrt(len(products))
    assert (products.mean(0).abs() / error).max() < 4.5 and error.max() < 0.1


# Gaussian mixtures


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


# Kernel densities


def squared_distances(kernels, learned):
    covariance = torch.cov(learned.T, correction=0)
    difference = kernels[:, None] - learned
    return torch.einsum("abi,ij,abj->ab", difference, covariance.inverse(), difference)


def test_kernel_density_is_the_sum_over_learned_kernels():
    learned, fresh = bent(60).flatten(1), bent(30, seed=1).flatten(1)
    prior = SMALL["kde"](bent(60))
    blur = prior.bandwidth.square() * torch.cov(learned.T, correction=0)
    truth = MixtureSameFamily(Categorical(torch.ones(60)), MultivariateNormal(learned, blur))
    torch.testing.assert_close(prior.log_prob(fresh.view(-1, 1, 1, 2)), truth.log_prob(fresh))


def test_kernel_density_in_several_parts_is_the_same():
    prior = KernelDensity((1, 2, 2), count=2**16)  # 64 kernels at a time
    prior.learned.copy_(normal(2**16, 4))
    kernels = prior.sample(130, seeded())
    parts = [prior.log_prob(part) for part in kernels.split(13)]
    torch.testing.assert_close(prior.log_prob(kernels), torch.cat(parts))


def test_a_small_bandwidth_finds_the_nearest_learned_kernel():
    prior, fresh = SMALL["kde"](bent(60)), bent(30, seed=1)
    prior.bandwidth.fill_(1e-3)
    squares = squared_distances(fresh.flatten(1), prior.learned)
    constant = math.log(60) + math.log(2 * math.pi * 1e-6) + prior.whitening.log_det()
    nearest = -0.5 * squares.min(1).values / 1e-6 - constant
    torch.testing.assert_close(prior.log_prob(fresh), nearest, rtol=1e-9, atol=0.01)
    drawn = prior.sample(1000, seeded())
    blurred = squared_distances(drawn.flatten(1), prior.learned).min(1).values / 1e-6
    assert blurred.mean().item() == pytest.approx(2, abs=0.3)  # χ² of two numbers
    assert prior.sample(1000, seeded(), noise=False).flatten(1).unique(dim=0).shape == (60, 2)


def test_bandwidth_is_the_likeliest_for_kernels_left_out():
    kernels = bent(60)
    prior, squares = SMALL["kde"](kernels), squared_distances(kernels.flatten(1), kernels.flatten(1))
    squares.fill_diagonal_(math.inf)

    def left_out(h):
        return (torch.logsumexp(-0.5 * squares / h**2, 1) - 2 * math.log(h)).mean().item()

    best = prior.bandwidth.item()
    assert left_out(best) >= max(left_out(best * factor) for factor in (0.5, 0.9, 0.97, 1.03, 1.1, 2))


@pytest.mark.parametrize("dim", [1, 2])
def test_bandwidth_is_near_silvermans_for_a_normal_distribution(dim):
    n = 400
    best = (4 / (dim + 2) / n) ** (1 / (dim + 4))
    found = torch.empty(8, 2)
    for seed in range(len(found)):
        kernels = 0.3 * normal(n, 1, 1, dim, seed=seed)
        for column, most in enumerate((2000, 130)):
            found[seed, column] = KernelDensity((1, 1, dim), count=n).fit_(kernels, most=most).bandwidth
    assert ((found[:, 0] / best - 1).abs() < 0.3).all()  # judged by all 400
    assert ((found.mean(0) / best - 1).abs() < 0.25).all()  # by 100 it is less certain


def test_bandwidth_by_validation():
    kernels = bent(60)
    fits = [KernelDensity((1, 1, 2), count=60).fit_(kernels, validation) for validation in (None, 3 * kernels, kernels)]
    own, far, same = (prior.bandwidth.item() for prior in fits)
    assert same == pytest.approx(0.02) and 0.1 < own < 0.7 < far  # the least there is; nothing is left out of it
    assert all(torch.equal(prior.learned, kernels.flatten(1).float()) for prior in fits)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "4"])
def test_kernel_density_errors(count):
    with pytest.raises(ValueError, match=f"count must be a whole number from 1 to 1048576; got {count!r}"):
        KernelDensity((1, 1, 2), count)
    with pytest.raises(ValueError, match="this density keeps count=8 kernels; got 60"):
        KernelDensity((1, 1, 2), 8).fit_(bent(60))


# Autoregressive densities


def test_each_factor_sees_the_weights_before_it_alone(monkeypatch):
    torch.manual_seed(0)
    prior = MIDDLE["autoregressive"](normal(80, 1, 3, 2)).eval()
    kernels, factors = prior.sample(5, seeded()), []
    whole = prior._factor
    monkeypatch.setattr(prior, "_factor", lambda *given: factors.append(whole(*given)) or factors[-1])
    innovations = [prior.whitening(kernels.flatten(1))]
    prior.log_prob(kernels)
    for i in range(6):
        changed = kernels.clone()
        changed.flatten(1)[:, i] += 0.3
        innovations.append(prior.whitening(changed.flatten(1)))
        prior.log_prob(changed)
        assert torch.equal(innovations[-1][:, :i], innovations[0][:, :i])
        assert (innovations[-1][:, i] != innovations[0][:, i]).all()
        for before, after in zip(factors[0], factors[-1], strict=True):
            assert torch.equal(before[:, : i + 1], after[:, : i + 1])
            assert (before[:, i + 1 :] != after[:, i + 1 :]).all()


def test_without_its_networks_it_is_the_gaussian():
    kernels, fresh = normal(200, 6) @ normal(6, 6, seed=1), normal(50, 6, seed=2)
    prior = Autoregressive((1, 3, 2), hidden=8, mixtures=1).double()
    prior.whitening.fit_(kernels)
    assert not prior.head.any()
    prior.head_bias.data[:, 2] = math.log(math.expm1(0.95))  # a scale of 1
    gaussian = Gaussian((1, 3, 2)).double().fit_(kernels.view(-1, 1, 3, 2))
    fresh = fresh.view(-1, 1, 3, 2)
    torch.testing.assert_close(prior.log_prob(fresh), gaussian.log_prob(fresh), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("hidden", "mixtures") for value in (0, 2.0, True, "4")),
        *(({"dropout": value}, f"dropout must be a number from 0 to below 1; got {value!r}")
          for value in (-0.1, 1, "x")),
    ],
)  # fmt: skip
def test_autoregressive_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Autoregressive((1, 3, 3), **arguments)


def test_dropout_of_an_autoregressive_density_is_for_fitting():
    torch.manual_seed(0)
    prior = perturbed(Autoregressive((1, 3, 2), hidden=8, dropout=0.5).double(), normal(80, 6), 0.3)
    kernels = normal(9, 1, 3, 2)
    assert not torch.equal(prior.train().log_prob(kernels), prior.log_prob(kernels))
    assert torch.equal(prior.eval().log_prob(kernels), prior.log_prob(kernels))


# Flows


@pytest.mark.parametrize("coupling", [False, True])
@pytest.mark.parametrize("network", ["maf", "nsf"])
def test_a_flow_goes_there_and_back(network, coupling):
    torch.manual_seed(0)
    prior = Flow((1, 2, 2), network, transforms=2, hidden=8, coupling=coupling).double()
    prior = perturbed(prior, normal(80, 4) @ normal(4, 4, seed=1), 0.2)
    kernels = prior.sample(500, seeded())
    base = torch.randn(500, 4, generator=seeded(), dtype=torch.float64)
    white = prior.whitening(kernels.flatten(1))
    torch.testing.assert_close(prior.flow()(white), base, rtol=0, atol=1e-5)
    assert (white - base).abs().mean() > 0.05
    assert prior.log_prob(kernels).isfinite().all()


def without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    return pytest.raises(ImportError, match=r"a flow prior needs the library zuko \(.*pip install 'dwp_init\[flow\]'")


def test_a_flow_without_zuko_says_what_to_install(monkeypatch, tmp_path):
    folder = save_prior(Flow((1, 3, 3), transforms=1, hidden=4), tmp_path / "flow")
    with without_zuko(monkeypatch):
        Flow((1, 3, 3))
    with without_zuko(monkeypatch):
        load_prior(folder)


def test_importing_dwp_init_needs_no_zuko():
    script = """
import sys
import dwp_init, dwp_init.cli
assert "zuko" not in sys.modules
sys.modules["zuko"] = None
dwp_init.apply_(dwp_init.initialize.nn.Conv2d(1, 2, 3), dwp_init.Autoregressive((1, 3, 3), hidden=4))
"""
    root = Path(dwp_init.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "glow"}, "network must be one of 'maf', 'nsf'; got 'glow'"),
        ({"kernel_shape": (1, 1, 1)}, r"a flow needs kernels of 2 numbers or more; got kernel_shape \(1, 1, 1\)"),
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("transforms", "hidden") for value in (0, 2.0, True, "4")),
        ({"transforms": 101}, "transforms must be a whole number from 1 to 100; got 101"),
        ({"hidden": 2**20}, r"transforms=3 and hidden=1048576 over kernels of 9 numbers has up to \d+ weights; at"),
        ({"kernel_shape": (1, 999, 999)}, r"over kernels of 998001 numbers has up to \d+ weights; at most 134217728"),
    ],
)  # fmt: skip
def test_flow_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Flow(**{"kernel_shape": (1, 3, 3), **arguments})


# Bad input


@pytest.mark.parametrize(("family", "flag"), [(Flow, "coupling"), (KernelVAE, "whiten")])
@pytest.mark.parametrize("value", [1, "no", None])
def test_flags_must_be_bools(family, flag, value):
    with pytest.raises(TypeError, match=f"{flag} must be True or False; got {value!r}"):
        family((1, 3, 3), **{flag: value})


def test_arguments_that_give_no_density():
    kernels = bent(60)
    with pytest.raises(ValueError, match=r"scales must be 0.0001 or more; got 1e-30"):
        GaussianMixture((1, 1, 2), 2, (1e-30,))
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 1048576; got 0"):
        GaussianMixture((1, 1, 2), 2).fit_(kernels.float(), steps=0)
    density = KernelDensity((1, 1, 2), count=60)
    with pytest.raises(ValueError, match="most must be a whole number from 1 to 1048576; got 0"):
        density.fit_(kernels, most=0)
    for validation in (kernels[:0], kernels * torch.nan):
        with pytest.raises(ValueError, match=f"without NaN or infinity; got {len(validation)} kernels"):
            density.fit_(kernels, validation)
    assert not density.learned.any()  # as it was
    vae = KernelVAE((1, 1, 2), latent_dim=1, hidden=4)
    with pytest.raises(ValueError, match="points must be 2 or more; got 1"):
        vae.log_prob_by_quadrature(kernels, points=1)
    with pytest.raises(ValueError, match="width must be a number above 0 and below 1,000,000; got -1"):
        vae.log_prob_by_quadrature(kernels, width=-1)


def test_average_keeps_the_dtype():
    parts = [GaussianMixture((1, 1, 2), 2).double().fit_(bent(60), generator=seeded(seed)) for seed in (0, 1)]
    average = GaussianMixture.average(parts)
    assert average.dtype == torch.float64 and average.sample(3).dtype == torch.float64
    expected = torch.stack([part.log_prob(bent(5, 1)) for part in parts]).logsumexp(0) - math.log(2)
    torch.testing.assert_close(average.log_prob(bent(5, 1)), expected)


def test_many_kernels_are_as_good_as_few():
    """log p is found in parts, which bound the memory."""
    prior = perturbed(Autoregressive((1, 1, 2), hidden=4, mixtures=1), bent(60).float(), 0.5)
    prior.hidden = 2**22  # as if it were so wide that 2 kernels make a part
    kernels = bent(5).float()
    torch.testing.assert_close(prior.log_prob(kernels), torch.cat([prior.log_prob(kernel[None]) for kernel in kernels]))


def test_a_covariance_without_an_inverse_names_the_shrinkage():
    kernels = normal(200, 1, 5, 5).float()
    with pytest.raises(ValueError, match=r"the covariance of component \d+ has no inverse; raise shrinkage=1e-15"):
        GaussianMixture((1, 5, 5), 40).fit_(kernels, 1e-15, generator=seeded())
    with pytest.raises(ValueError, match="min_scale must be 1e-06 or more; got 1e-30"):
        KernelVAE((1, 3, 3), min_scale=1e-30)


def test_a_mixture_by_depth_is_each_depths_own_and_their_average():
    near, far = bent(60), 3 * bent(60, seed=1)
    prior, points = by_depth(near, far), bent(20, seed=2)
    first, last = (GaussianMixture((1, 1, 2), 2, (0.5, 1.5)).double().fit_(k, generator=seeded()) for k in (near, far))
    each = torch.stack([first.log_prob(points), last.log_prob(points)])
    torch.testing.assert_close(prior.log_prob(points), each.exp().mean(0).log())
    for depth, alone in [(0, first), (0.5, first), (0.51, last), (1, last)]:
        torch.testing.assert_close(prior.at(depth).log_prob(points), alone.log_prob(points))
    assert Gaussian((1, 1, 2)).at(0.3).family == "gaussian"


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
