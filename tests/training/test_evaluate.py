import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from dwp_init import Gaussian, KernelVAE
from training.evaluate import (
    clustered_error,
    describe_kernels,
    frechet_distance,
    sample_statistics,
    score,
    write_table,
)


def kernels(n: int, size: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64)


def exactly(n: int, loc: Tensor, scale: Tensor, seed: int) -> Tensor:
    """Kernels 2×2 whose mean and covariance are just these."""
    flat = kernels(n, 2, seed).flatten(1)
    flat = flat - flat.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(flat.T)), flat.T, upper=False).T
    return (loc + white * scale).view(n, 1, 2, 2)


def test_frechet_distance_of_diagonal_gaussians() -> None:
    """‖μ - μ'‖² + Σ (σ - σ')²."""
    loc = torch.tensor([[0, 1, 2, -3], [1, 1, 0, -1]], dtype=torch.float64)
    scale = torch.tensor([[1, 2, 3, 0.5], [2, 2, 1, 0.1]], dtype=torch.float64)
    a, b = (exactly(100, loc[part], scale[part], seed=part) for part in (0, 1))
    expected = (loc[0] - loc[1]).square().sum() + (scale[0] - scale[1]).square().sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected.item(), abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute() -> None:
    """tr (A B)^½ of two positive 2×2 blocks is √(tr AB + 2 √det AB)."""
    a, b = kernels(50, 2, 1), kernels(80, 2, 2) @ torch.tensor([[1.0, 0.9], [0, 0.2]], dtype=torch.float64)
    a[:, :, 1], b[:, :, 1] = 0, 0
    cov_a, cov_b = (torch.cov(part[:, 0, 0].T) for part in (a, b))
    product = cov_a @ cov_b
    cross = (product.trace() + 2 * product.det().sqrt()).sqrt()
    means = (a.mean(0) - b.mean(0)).square().sum()
    expected = means + cov_a.trace() + cov_b.trace() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected.item(), abs=1e-6)


CHECKERS = (torch.arange(5)[:, None] + torch.arange(5)) % 2 * 2.0 - 1


@pytest.mark.parametrize(
    ("values", "roughness", "tolerance"),
    [
        (kernels(20_000, 7).float(), 1, 0.01),
        (torch.randn(100, 1, 1, 1).expand(100, 2, 5, 5), 0, 0),
        (CHECKERS.expand(3, 1, 5, 5), 2, 0),
        (CHECKERS[0].expand(3, 1, 5, 5), 1, 0),
    ],
    ids=["white noise", "flat", "checkers", "stripes"],
)
def test_roughness(values: Tensor, roughness: float, tolerance: float) -> None:
    assert describe_kernels(values)["roughness"] == pytest.approx(roughness, abs=tolerance)


def test_scale_of_kernels() -> None:
    values = torch.arange(101.0).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    found = describe_kernels(values)
    assert found["norm_5_50_95"] == [10, 100, 190]
    assert found["rms"] == round((100 * 201 / 6) ** 0.5, 5)


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
    assert clustered_error(values, alone) == pytest.approx(plain, rel=1e-4)
    assert clustered_error(values, torch.zeros(4000)) == pytest.approx(plain, rel=1e-4)
    repeated, network = values[:50].repeat_interleave(80), alone // 80
    assert clustered_error(repeated, network) == pytest.approx(values[:50].std().item() / 50**0.5, rel=1e-4)


def test_sample_statistics_set_draws_beside_kernels(gaussian: Callable[..., Gaussian]) -> None:
    prior = gaussian(3)
    real = prior.sample(10_000, torch.Generator().manual_seed(0))
    found = sample_statistics(prior, real)
    assert list(found) == ["real", "drawn"] and found["real"] == found["drawn"]
    assert found["real"]["frechet"] == pytest.approx(0, abs=1e-5)
    vae = KernelVAE((1, 3, 3), latent_dim=2, hidden=8).eval()
    found = sample_statistics(vae, real, n=500)
    assert list(found) == ["real", "drawn", "mean"] and found["mean"]["rms"] < found["drawn"]["rms"]


def test_a_table_reads_back(tmp_path: Path) -> None:
    rows = [{"init": "white noise, dwp's RMS", "step": 10}, {"init": 'a "b"\nc', "step": ""}]
    write_table(tmp_path / "new" / "table.csv", rows)
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in rows]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.csv"]
