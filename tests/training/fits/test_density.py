from pathlib import Path

import pytest
import torch

from tests.training.fits.common import mixture, run
from training.fits.base import fitted_prior
from training.fits.density import FitDensity


@pytest.mark.parametrize(
    ("most", "kept"), [(50, slice(None, None, 4)), (200, slice(None)), (150, slice(None, None, 2))]
)
def test_a_density_keeps_evenly_spaced_kernels(most: int, kept: slice, tmp_path: Path) -> None:
    prior = fitted_prior(run(tmp_path, FitDensity(most=most)))
    assert torch.equal(prior.learned, mixture(200, 0)[kept].flatten(1))
