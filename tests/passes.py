"""Networks with forward passes of their own that hand one tensor on."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import relu

Forward = Callable[..., Any]


SCALE = 255


class Net(nn.Module):
    """Two convolutions and a classifier, as in many tutorials; how they are called is a function of its own."""

    size = (1, 1)

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.pool, self.head, self.act, self.kernel, self.kept = nn.MaxPool2d(2), nn.Linear(16, 5), F.relu, 2, [0]
        self.layers = nn.ModuleList([self.one, nn.Conv2d(8, 8, 3, padding=1)])
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    @property
    def last(self) -> int:
        return 0


def made(forward: Forward, norm: bool = False) -> Any:
    """A network with a function of this file as its forward pass."""
    return type(forward.__name__, (Net,), {"forward": forward})(norm)


def usual(net: Net, x: Tensor) -> Tensor:
    """Two layers.

    As in tutorials.
    """
    x = net.pool(F.relu(net.one(x)))
    x = net.norm(net.two(x))
    x = F.relu(x)  # and a comment
    x = F.adaptive_avg_pool2d(x, (1, 1))
    x = torch.flatten(x, 1)
    x = net.head(F.dropout(x, 0.5, training=net.training))
    return F.log_softmax(x, dim=1)


def methods(net: Net, x: Tensor, label: Tensor | None = None) -> Tensor:
    n, _, _, _ = x.shape
    x = (x.float() / SCALE - net.mean).to(net.one.weight.dtype)
    one = net.one(x).relu_()
    pooled = F.max_pool2d(one, net.kernel, stride=(2, 2))
    two = net.two(pooled.contiguous()).relu()
    return net.head(two.mean(dim=(2, 3)).view(x.size(0), -1)) / n


def attributes(net: Net, x: Tensor) -> Tensor:
    first: Tensor = net.layers[0](x)
    x = net.act(first)
    x = relu(net.two(nn.functional.avg_pool2d(x, 2)))
    return net.head(x.mean([-2, -1])) / SCALE


def flat(net: Net, x: Tensor) -> Tensor:
    assert x.ndim == 4, "images"
    print(x.shape, x.dtype)
    x = x.view(-1, 3, 8, 8)
    x = net.pool(net.one(x).relu())
    x = F.avg_pool2d(net.two(x).relu(), 4)
    x = net.head(x.view(-1, x.size(1)))
    return x.reshape((x.shape[0], -1)).view(-1)


def looping(net: Net, x: Tensor) -> Tensor:
    for layer in net.layers:
        y = layer(x)
        x = torch.relu(y)
    return net.two(net.pool(x)).relu().amax((2, 3), keepdim=True).softmax(1)


class Block(nn.Module):
    """A layer and a ReLU; the name of a method says what is done to the numbers besides, and where."""

    def __init__(self, layer: nn.Module, how: str = "plain") -> None:
        super().__init__()
        self.layer, self.relu, self.gain = layer, nn.ReLU(), 6**0.5
        self.__class__ = type(how, (Block,), {"forward": getattr(Block, how)})

    def plain(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x))

    def scaled_before(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x * self.gain))

    def scaled_behind(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x)) * self.gain

    def normalised_before(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(F.normalize(x)))

    def reshaped_before(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x.view(x.shape)))

    def cast_before(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x.to(torch.bool).float()))


class Stages(Net):
    """Blocks around a pool in a sequence, or in a list."""

    def __init__(self, listed: bool, *blocks: nn.Module) -> None:
        super().__init__()
        del self.one, self.two, self.layers, self.norm
        self.blocks = nn.ModuleList(blocks) if listed else nn.Sequential(*blocks)
        self.__class__ = type("Listed", (Stages,), {"forward": Stages.listed if listed else Stages.as_one})

    def as_one(self, x: Tensor) -> Tensor:
        return self.classify(self.blocks(x))

    def listed(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.classify(x)

    def classify(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))
