"""A prior's folder that can be published, and a registry of one's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import dwp_init
from dwp_init import registry
from training.fits.statistics import describe
from training.publish import release


@pytest.fixture
def folder(gaussian: Callable[..., dwp_init.Gaussian], tmp_path: Path) -> Path:
    """A prior with its statistics recorded."""
    prior = gaussian(3)
    drawn = describe(prior.sample(10_000, torch.Generator().manual_seed(7)))
    prior.details = {"name": "mine", "license": "MIT", "metrics": {"log_prob": 12.5, "samples": {"drawn": drawn}}}
    return dwp_init.save_prior(prior, tmp_path / "mine")


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty registry, in place of the package's."""
    path = tmp_path / "registry.json"
    path.write_text("{}")
    for module in (registry, release):
        monkeypatch.setattr(module, "REGISTRY", path)
    registry.registry.cache_clear()
    yield path
    registry.registry.cache_clear()
