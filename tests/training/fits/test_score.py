from collections.abc import Callable

import pytest
import torch
from torch.distributions import MultivariateNormal

from dwp_init import Gaussian, KernelVAE
from tests.training.fits.common import noise as kernels
from training.fits.score import clustered_error, score


def test_log_prob_of_a_gaussian_is_exact(gaussian: Callable[..., Gaussian]) -> None:
    prior = gaussian(3)
    white = prior.whitening
    covariance = (white.basis * white.scale.square()) @ white.basis.T
    values = prior.sample(500, torch.Generator().manual_seed(0))
    exact = MultivariateNormal(white.loc.double(), covariance.double()).log_prob(values.flatten(1).double())
    scores, found = score(prior, values)
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-3)
    assert found["log_prob"] == pytest.approx(exact.mean().item(), abs=2e-3)
    assert found["kernels"] == 500 and "elbo" not in found


@pytest.mark.parametrize(("n", "most", "picked"), [(10, 4, [0, 3, 6, 9]), (10, 10, range(10)), (9, 5, [0, 2, 4, 6, 8])])
def test_of_many_kernels_evenly_spaced_ones_are_scored(
    n: int, most: int, picked: list[int], gaussian: Callable[..., Gaussian]
) -> None:
    prior, values = gaussian(3), kernels(n).float()
    scores, found = score(prior, values, most=most)
    assert len(scores) == len(picked)
    assert found["kernels"] == len(picked)
    assert found["log_prob"] == pytest.approx(prior.log_prob(values[list(picked)]).mean().item(), abs=1e-3)


def test_log_prob_of_a_vae_is_repeatable_and_above_its_elbo() -> None:
    torch.manual_seed(0)
    prior, values = KernelVAE((1, 3, 3), latent_dim=2, hidden=8, dropout=0.5).train(), kernels(200).float()
    state = torch.get_rng_state()
    scores, found = score(prior, values, samples=100)
    assert torch.equal(state, torch.get_rng_state()) and not prior.training
    again = score(prior, values, samples=100)
    assert torch.equal(again[0], scores) and again[1] == found
    assert found["log_prob"] > found["elbo"] and found["latents_per_kernel"] == 100


def test_clustered_error_against_known_answers() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    alone = torch.arange(4000)
    plain = values.std().item() / 4000**0.5
    assert clustered_error(values.double(), alone) == clustered_error(values, alone)
    assert clustered_error(values, alone) == pytest.approx(plain, rel=1e-4)
    assert clustered_error(values, torch.zeros(4000)) == pytest.approx(plain, rel=1e-4)
    repeated, network = values[:50].repeat_interleave(80), alone // 80
    assert clustered_error(repeated, network) == pytest.approx(values[:50].std().item() / 50**0.5, rel=1e-4)
