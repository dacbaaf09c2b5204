from pathlib import Path

import torch

from tests.training.fits.common import QUICKS, mixture, run
from training.fits.base import fitted_prior


def test_gaussian_has_the_moments_of_the_fitting_kernels(tmp_path: Path) -> None:
    folder = run(tmp_path, QUICKS["gaussian"])
    white, flat = fitted_prior(folder).whitening, mixture(200, 0).flatten(1)
    torch.testing.assert_close(white.loc, flat.mean(0))
    torch.testing.assert_close((white.basis * white.scale.square()) @ white.basis.T, torch.cov(flat.T, correction=0))
    metrics = fitted_prior(folder).details["metrics"]
    assert metrics["log_prob"] == metrics["gaussian_log_prob"]
