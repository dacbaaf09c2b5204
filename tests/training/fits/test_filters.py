"""A prior around given filters: its components, its record, and what it refuses."""

from pathlib import Path

import pytest
import torch

from dwp_init import GaussianMixture
from training.engine.stage import Context
from training.fits.base import fitted_prior
from training.fits.filters import MixFilters


def test_components_are_the_filters_with_both_signs_and_one_that_passes_its_input_on(tmp_path: Path) -> None:
    summary = MixFilters(name="mine", passing=0.2, spread=0.1).run(tmp_path, Context(tmp_path, smoke=True))
    prior = fitted_prior(tmp_path)
    assert isinstance(prior, GaussianMixture) and prior.kernel_shape == (1, 7, 7)
    assert torch.equal(prior.loc[:8], -prior.loc[8:16])
    assert torch.equal(prior.loc[16].view(7, 7).nonzero(), torch.tensor([[3, 3]]))
    torch.testing.assert_close(prior.loc.square().mean(1), torch.ones(17))
    torch.testing.assert_close(prior.weight.flatten(), torch.tensor([*[0.05] * 16, 0.2]))
    assert summary["least_cosine"] > 0.99
    fit, source = prior.details["fit"], prior.details["source"]
    assert len(fit["closest_of_20000_draws"]) == source["given_filters"] == 8 and source["synthetic"]


@pytest.mark.parametrize("name", ["passing", "spread"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_out_of_range(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0 and below 1; got {value:g}"):
        MixFilters(**{name: value}).run(tmp_path, Context(tmp_path, smoke=True))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"there is no master_filters.txt in .*; get it from https://github.com"
    ):
        MixFilters().run(tmp_path, Context(tmp_path, data_root=tmp_path))
