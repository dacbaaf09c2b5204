import math
from pathlib import Path

import pytest
import torch

from dwp_init import Gaussian, GaussianMixture
from tests.training.fits.common import mixture, run, write_kernels
from training.engine.records import read_metrics, record_metrics
from training.fits.base import FITS, fitted_prior
from training.fits.mixture import FitMixture
from training.kernels.kernelset import KernelSet


@pytest.mark.parametrize("law", ["two-sided", "one-sided"])
def test_a_mixture_is_the_best_of_its_grid_on_validation_kernels(law: str, tmp_path: Path) -> None:
    """Kernels to fit and to test are of two sides; where the validation kernels are not, one component is best."""
    train, test = mixture(300, 0), mixture(60, 2)
    validation = mixture(100, 1) if law == "two-sided" else Gaussian((1, 3, 3)).fit_(train).sample(100)
    write_kernels(tmp_path, KernelSet(train, validation, test, torch.zeros(60)))
    stage = FitMixture(components=(1, 2, 30), shrinkages=(1000.0, 5.0), scales=(1.0,), restarts=3, seed=4)
    folder = run(tmp_path, stage)
    averages = {}
    for components in stage.components:
        for shrinkage in stage.shrinkages:
            parts = []
            for restart in range(3):
                generator = torch.Generator().manual_seed(4 * 1009 + restart)
                part = GaussianMixture((1, 3, 3), components).fit_(train, shrinkage, generator=generator)
                parts.append(part.log_prob(validation))
            averages[components, shrinkage] = torch.stack(parts).logsumexp(0) - math.log(3)
    best = max(averages, key=lambda key: averages[key].mean())
    assert best == ((2, 5.0) if law == "two-sided" else (1, 1000.0))
    prior = fitted_prior(folder)
    torch.testing.assert_close(prior.log_prob(validation), averages[best], rtol=0, atol=1e-3)
    assert prior.components == 3 * best[0]
    rows = {(row["components"], row["shrinkage"]): row["validation_log_prob"] for row in read_metrics(folder)}
    assert rows == {key: pytest.approx(value.mean().item(), abs=2e-3) for key, value in averages.items()}


def test_more_components_than_kernels_are_left_out(tmp_path: Path) -> None:
    stage = FitMixture(components=(201, 1, 200), shrinkages=(10.0,), scales=(1.0,), restarts=1)
    assert [row["components"] for row in read_metrics(run(tmp_path, stage))] == [1, 200]


def test_a_mixture_without_a_finite_log_prob_names_the_outlier(tmp_path: Path) -> None:
    outlier = torch.full((2, 1, 3, 3), 1e25)
    write_kernels(tmp_path, KernelSet(mixture(200, 0), outlier, mixture(60, 2), torch.zeros(60)))
    stage = FITS["mixture"](components=(2,), shrinkages=(10.0,), restarts=1)
    with pytest.raises(ValueError, match=r"no mixture of 'my-prior' gives the validation kernels a finite .*inf"):
        run(tmp_path, stage)


def test_an_interrupted_fit_starts_again_without_its_old_rows(tmp_path: Path) -> None:
    stage = FitMixture(components=(1, 2), shrinkages=(5.0,), scales=(1.0,), restarts=1)
    rows = read_metrics(run(tmp_path / "whole", stage))
    (tmp_path / "part" / "fit").mkdir(parents=True)
    record_metrics(tmp_path / "part" / "fit", **rows[0])
    assert len(rows) == 2 and read_metrics(run(tmp_path / "part", stage)) == rows
