"""What `apply_` draws stays the same from version to version: the same seed gives the same weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dwp_init

RECORD = Path(__file__).parent / "draws.json"
NATURAL, NOTMNIST = "natural", ["notmnist-7x7", "notmnist-5x5"]
CASES = {
    "dense 3x3": (lambda: nn.Conv2d(16, 24, 3), NATURAL, {}),
    "dense 5x5": (lambda: nn.Conv2d(8, 8, 5), NATURAL, {}),
    "dense 7x7": (lambda: nn.Conv2d(4, 6, 7), NATURAL, {}),
    "colour stem": (lambda: nn.Conv2d(3, 16, 7), NATURAL, {}),
    "depthwise 3x3": (lambda: nn.Conv2d(16, 16, 3, groups=16), "natural-dw3x3", {}),
    "depthwise 7x7": (lambda: nn.Conv2d(16, 16, 7, groups=16), NATURAL, {}),
    "grouped": (lambda: nn.Conv2d(16, 8, 3, groups=4), NATURAL, {}),
    "transposed": (lambda: nn.ConvTranspose2d(8, 6, 3, stride=2), NATURAL, {}),
    "by depth": (lambda: nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(4))), NATURAL, {"scale": "keep"}),
    "resized": (lambda: nn.Conv2d(8, 8, 4), NATURAL, {"resize": True}),
    "independent": (lambda: nn.Conv2d(8, 8, 3), NATURAL, {"orthogonal": False}),
    "many channels": (lambda: nn.Conv2d(16, 160, 3), NATURAL, {}),
    "row": (lambda: nn.Conv2d(8, 8, (1, 7)), NATURAL, {}),
    "chain": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()), NATURAL, {}),
    "He's response": (lambda: nn.Conv2d(8, 8, 5), NATURAL, {"scale": "fan_in"}),
    "half precision": (lambda: nn.Conv2d(8, 8, 3).to(torch.bfloat16), NATURAL, {}),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), NATURAL, {}),
    "the paper's": (lambda: nn.Sequential(nn.Conv2d(1, 8, 7), nn.Conv2d(8, 8, 5)), NOTMNIST, {}),
    "prior's scale": (lambda: nn.Conv2d(4, 8, 7), "notmnist-7x7", {"scale": "prior"}),
    "VAE": (lambda: nn.Conv2d(4, 8, 5), "notmnist-5x5-vae", {}),
    "VAE, mean": (lambda: nn.Conv2d(4, 8, 5), "notmnist-5x5-vae", {"noise": False}),
    "paper's VAE": (lambda: nn.Conv2d(2, 4, 7), "notmnist-7x7-h1", {}),
}


def digest(model: nn.Module) -> list[float]:
    """Returns two projections of each convolution's weight, which unlike a hash leave room for rounding."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    return [float(f"{value:.8g}") for layer in layers for value in _projections(layer.weight.detach().double())]


def _projections(weight: Tensor) -> list[float]:
    directions = torch.randn(2, weight.numel(), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (directions @ weight.flatten()).tolist()


def draw(case: str) -> nn.Module:
    make, prior, options = CASES[case]
    torch.manual_seed(0)  # because a draw keeps the response of the weight before
    model = make()
    dwp_init.apply_(model, prior, seed=5, **options)
    return model


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_gives_the_weights_of_record(case: str) -> None:
    expected = json.loads(RECORD.read_text())[case]
    tolerance = 1e-2 if case == "half precision" else 1e-4
    assert digest(draw(case)) == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_every_case_is_recorded() -> None:
    assert list(json.loads(RECORD.read_text())) == list(CASES)
