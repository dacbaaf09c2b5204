"""Chains of modules, and modules around them that do more or less than run them."""

from collections import OrderedDict
from dataclasses import replace

import torch
from torch import Tensor, nn

from dwp_init.sets import SETS

EVERYWHERE = replace(SETS["natural"], kept=())  # draws dense layers too


def conv(inputs: int = 8) -> nn.Conv2d:
    return nn.Conv2d(inputs, 8, 3, padding=1)


def head() -> nn.Conv2d:
    return nn.Conv2d(8, 2, 1)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Classifier(nn.Module):
    """A chain within a module with a forward pass of its own, as in torchvision's VGG."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Pair(nn.Module):
    """Two chains of which the second may be left out, so that the pass around them is not known."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) if x.numel() else x


class Walked(nn.Module):
    """Runs the parts of a chain one by one, and adds to each what it gets where it can."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        for part in self.features:
            y = part(x)
            x = x + y if x.shape == y.shape else y
        return x


def features() -> nn.Sequential:
    inner = nn.Sequential(conv(), nn.Dropout(), nn.MaxPool2d(2), nn.LeakyReLU())
    return nn.Sequential(OrderedDict(one=conv(3), relu=nn.ReLU(), inner=inner, pool=nn.AvgPool2d(2), last=conv()))


class Doubled(nn.Conv2d):
    def _conv_forward(self, *given: Tensor) -> Tensor:
        return 2 * super()._conv_forward(*given)


class Loud(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def shuffled() -> nn.Sequential:
    """Takes and returns 2 channels: those of 4 pixels are one inside."""
    return nn.Sequential(nn.PixelUnshuffle(2), conv(), nn.ReLU(), conv(), nn.ReLU(), nn.PixelShuffle(2))


def plain(layers: int = 4, *last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(part for _ in range(layers) for part in (conv(), nn.ReLU())), *last)
