from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dwp_init import Gaussian, apply_, save_prior
from dwp_init.convolutions import he_rms
from dwp_init.registry import registry
from training.starts.base import spatial_convolutions
from training.starts.priors import (
    DWP,
    DWP_CENTRED,
    DWP_ORTHOGONAL,
    DWP_OWN,
    NOISE_OWN,
    bundled_digests,
)

Make = Callable[..., nn.Module]


STARTED: dict[str, dict[str, Any]] = {
    DWP: {"orthogonal": False, "scale": "prior"},
    DWP_OWN: {"scale": "prior"},
    DWP_ORTHOGONAL: {"orthogonal": True, "scale": "prior"},
}


@pytest.mark.parametrize("network", ["mnist", "vae", "mobilenet"])
@pytest.mark.parametrize("start", STARTED)
def test_starts_are_what_apply_draws_and_dwp_has_hes_rms(network: str, start: str, make: Make, priors: list) -> None:
    expected = make(network, "own", seed=3)
    apply_(expected, priors, seed=3, **STARTED[start])
    for layer in spatial_convolutions(expected).values() if start != DWP_OWN else ():
        with torch.no_grad():
            layer.weight.mul_(he_rms(layer) / layer.weight.square().mean().sqrt())
    found = make(network, start, seed=3)
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)


def test_centred_kernels_have_no_mean_and_else_are_as_dwp_draws(make: Make) -> None:
    plain, centred = (spatial_convolutions(make("mobilenet", start)) for start in (DWP, DWP_CENTRED))
    for name, layer in plain.items():
        expected, found = layer.weight - layer.weight.mean((2, 3), keepdim=True), centred[name].weight
        assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item() == pytest.approx(1, abs=1e-5)
        assert found.mean((2, 3)).abs().max() < 1e-6


def test_noise_has_the_scale_of_the_priors_own_draws(make: Make) -> None:
    noise, dwp = (spatial_convolutions(make("vae", start)) for start in (NOISE_OWN, DWP_OWN))
    for name, layer in dwp.items():
        scales = [part.weight.square().mean().sqrt().item() for part in (noise[name], layer)]
        assert scales[0] == pytest.approx(scales[1], rel=1e-4)
        assert abs(F.cosine_similarity(noise[name].weight.flatten(), layer.weight.flatten(), dim=0).item()) < 0.4


def test_bundled_priors_alone_have_digests(tmp_path: Path, gaussian: Callable[..., Gaussian]) -> None:
    digests = bundled_digests("notmnist-7x7")["notmnist-7x7"]
    assert digests["config.json"].startswith("5e5a282c5aa67874")  # of runs of record, from before format 2
    assert digests["model.safetensors"] == registry()["notmnist-7x7"]["sha256"]["model.safetensors"]
    assert bundled_digests() == {}
    assert {"tinyimagenet-3x3", "tinyimagenet-stem-7x7"} < bundled_digests("natural-v1").keys()
    folder = str(save_prior(gaussian(3), tmp_path / "mine"))
    with pytest.raises(ValueError, match="mine' is no bundled prior; this stage takes one of these: audio, "):
        bundled_digests("notmnist-7x7", folder)
    with pytest.raises(ValueError, match="'none' is no bundled prior"):
        bundled_digests("none")


def test_layers_that_no_prior_fits_are_an_error_where_none_does(make: Make, priors: list) -> None:
    with pytest.raises(ValueError, match=r"is for 5×5 kernels; the layers asked for have 7×7"):
        make("convmixer", DWP, priors=priors[1:2])
