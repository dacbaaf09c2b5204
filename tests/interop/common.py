"""A small network, and what is done with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dwp_init import Report, apply_
from dwp_init.convolutions import named_convolutions
from dwp_init.weights import weight_of

Wrap = Callable[[nn.Module], nn.Module]


def network(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, **options), nn.BatchNorm2d(8, **options), nn.ReLU(), nn.Conv2d(8, 8, 3, **options)]
    return nn.Sequential(*layers, nn.Conv2d(8, 4, 1, **options))


def each(wrap: Wrap) -> Wrap:
    """Wraps the spatial convolutions of a model instead of the model."""

    def wrap_each(model: nn.Module) -> nn.Module:
        for place in (0, 3):
            model[place] = wrap(model[place])
        return model

    return wrap_each


def draw(model: nn.Module, **options: Any) -> Report:
    return apply_(model, "natural", seed=0, scale="fan_in", **options)


def weights(model: nn.Module) -> list[Tensor]:
    return [weight_of(named.module).read() for named in named_convolutions(model)]
