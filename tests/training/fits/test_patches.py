"""The fit of filters that whiten patches: what it reads, and what it leaves."""

from pathlib import Path

import pytest
import torch

from dwp_init import PatchWhitening
from training.engine.stage import Context
from training.fits.base import fitted_prior
from training.fits.patches import FitPatches


def test_a_fit_saves_the_covariances_of_its_images(tmp_path: Path) -> None:
    stage = FitPatches(name="mine", data="cifar10", span=4, kernel_size=3)
    context = Context(tmp_path, smoke=True)
    assert stage.data_sets() == ("cifar10",)
    assert stage.run(tmp_path, context) == {"family": "patch-whitening", "images": 512}
    prior = fitted_prior(tmp_path)
    assert isinstance(prior, PatchWhitening) and prior.kernel_shape == (3, 3, 3) and prior.span == (4, 4)
    images, _ = context.images("cifar10", "train").to(torch.device("cpu"))
    expected = PatchWhitening((3, 3, 3), span=(4, 4)).fit_(images)
    assert torch.equal(prior.covariance, expected.covariance)
    source = {"dataset": "cifar10", "fitted_images": 512, "synthetic": True, "kind": "stem"}
    assert prior.details["source"] == source and prior.details["name"] == "mine"


def test_images_smaller_than_the_span(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cifar10 has images of 32×32; span must be at most that, got 33"):
        FitPatches(data="cifar10", span=33).run(tmp_path, Context(tmp_path, smoke=True))
