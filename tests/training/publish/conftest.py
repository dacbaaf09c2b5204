"""A prior's folder that can be published."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dwp_init
from training.fits.statistics import describe


@pytest.fixture
def folder(gaussian: Callable[..., dwp_init.Gaussian], tmp_path: Path) -> Path:
    """A prior with its statistics recorded."""
    prior = gaussian(3)
    drawn = describe(prior.sample(10_000, torch.Generator().manual_seed(7)))
    prior.details = {"name": "mine", "license": "MIT", "metrics": {"log_prob": 12.5, "samples": {"drawn": drawn}}}
    return dwp_init.save_prior(prior, tmp_path / "mine")
