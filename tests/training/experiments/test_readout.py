import math

import pytest
import torch
from torch import Tensor, distributions

from training.experiments.readout import centred_products, fit_readout, log_evidence


def problem(n: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and targets of the model itself: weights N(0, 1), noise of a given standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 12, generator=generator, dtype=torch.float64)
    weights = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    return features, features @ weights + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def test_the_evidence_is_the_density_of_the_targets() -> None:
    """At the best noise: other noise precisions have a lower density."""
    features, targets = problem(20, 0.5)
    gram = features @ features.T
    values, vectors = torch.linalg.eigh(gram)
    strength = torch.tensor(0.3, dtype=torch.float64)
    found = log_evidence(values.clamp_min(0), vectors.T @ targets, strength).item()

    def density(variance: float) -> float:
        covariance = variance * (torch.eye(20, dtype=torch.float64) + gram / strength)
        law = distributions.MultivariateNormal(torch.zeros(20, dtype=torch.float64), covariance)
        return law.log_prob(targets.T).sum().item()

    best = (targets * torch.linalg.solve(torch.eye(20, dtype=torch.float64) + gram / strength, targets)).sum() / 60
    assert found == pytest.approx(density(best.item()), rel=1e-9)
    assert found > max(density(1.1 * best.item()), density(0.9 * best.item()))


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_the_strength_of_the_model_is_found(noise: float) -> None:
    """λ is the noise's variance over that of the weights; the read-out is the ridge regression of that strength."""
    features, targets = problem(400, noise)
    found = fit_readout(features @ features.T, targets)
    assert math.log(found.strength) == pytest.approx(math.log(noise**2), abs=0.7)
    eye = torch.eye(12, dtype=torch.float64)
    ridge = torch.linalg.solve(features.T @ features + found.strength * eye, features.T @ targets)
    torch.testing.assert_close(features.T @ found.dual, ridge, rtol=1e-6, atol=1e-8)


def test_targets_without_relation_to_the_features_take_the_greatest_strength() -> None:
    features, _ = problem(100, 1.0)
    targets = torch.randn(100, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = fit_readout(features @ features.T, targets)
    assert (features @ features.T @ found.dual).abs().max() < 0.5
    assert (
        found.strength
        > 30 * fit_readout(*(part @ part.T if i == 0 else part for i, part in enumerate(problem(100, 1.0)))).strength
    )


def test_centred_products_are_those_of_centred_features() -> None:
    features, others = problem(10, 1.0)[0], problem(7, 1.0, seed=1)[0]
    mean = features.mean(0)
    gram, cross = centred_products(features @ features.T, others @ features.T)
    torch.testing.assert_close(gram, (features - mean) @ (features - mean).T)
    torch.testing.assert_close(cross, (others - mean) @ (features - mean).T)


def test_features_that_tell_nothing() -> None:
    with pytest.raises(ValueError, match="the features of all 4 images are the same; there is nothing to read out"):
        fit_readout(torch.zeros(4, 4), torch.ones(4, 2))
