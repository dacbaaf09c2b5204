"""Models, layers and priors that several test modules share."""

import importlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init import Gaussian
from dwp_init.convolutions import find_layers
from dwp_init.storage import sealed_json

Convolution = nn.Conv2d | nn.ConvTranspose2d
Fit = Callable[..., Gaussian]
Snapshot = Callable[[nn.Module], dict[str, bytes]]

REPO = "dwp-init/gauss-3x3"  # of the prior that the fixture `commit` publishes


def network() -> nn.Sequential:
    """Has two 3×3 convolutions, a 5×5 one, a 1×1 one and three other layers."""
    stem = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4))
    body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3))
    return nn.Sequential(stem, body, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2))


def changed_config(content: bytes, **changes: object) -> bytes:
    """Returns a prior's configuration with other values, and with its own digest of them."""
    return sealed_json(json.loads(content) | changes, "config_sha256")


def changed(model: nn.Module, before: dict[str, bytes], snapshot: Snapshot) -> set[str]:
    return {name for name, value in snapshot(model).items() if before[name] != value}


class Doubled(nn.Module):
    """A parametrization with an inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


def rms(weight: Tensor) -> float:
    return weight.double().square().mean().sqrt().item()


def responses(model: nn.Module) -> dict[str, float]:
    """The response of each convolution that could be drawn, by name."""
    found = [layer for layer in find_layers(model, lambda named: True) if layer.reason is None]
    return {layer.name: layer.measure(layer.weight.read()).response for layer in found}


def parametrized(layer: nn.Module, *parts: nn.Module) -> nn.Module:
    for part in parts:
        parametrize.register_parametrization(layer, "weight", part)
    return layer


def old_style(wrap: Callable[..., nn.Module], layer: nn.Module, **options: object) -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        return wrap(layer, **options)


def fake_mode() -> AbstractContextManager[None]:
    return importlib.import_module("torch._subclasses.fake_tensor").FakeTensorMode()


def named(prior: Gaussian, name: str) -> Gaussian:
    prior.details["name"] = name
    return prior
