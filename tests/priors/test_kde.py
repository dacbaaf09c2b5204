"""Kernel densities against sums and known bandwidths."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dwp_init.priors import KernelDensity
from tests.priors.families import SMALL, bent, normal, seeded


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


def test_a_fit_that_is_refused_changes_nothing():
    kernels = bent(60)
    density = KernelDensity((1, 1, 2), count=60)
    with pytest.raises(ValueError, match="most must be a whole number from 1 to 1048576; got 0"):
        density.fit_(kernels, most=0)
    for validation in (kernels[:0], kernels * torch.nan):
        with pytest.raises(ValueError, match=f"without NaN or infinity; got {len(validation)} kernels"):
            density.fit_(kernels, validation)
    assert not density.learned.any()
