"""Chains with forward passes of their own, and what apply_ does with them."""

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dwp_init import apply_
from dwp_init.chain import normalised, rectified
from dwp_init.steps import chain_of
from tests.chains import Doubled, Loud, Residual
from tests.passes import Block, Net, Stages, attributes, made, usual


@pytest.mark.parametrize("listed", [False, True])
def test_parts_with_passes_of_their_own_are_read_too(listed: bool) -> None:
    def stages(*second: nn.Module) -> nn.Module:
        return Stages(listed, Block(nn.Conv2d(3, 8, 3)), nn.MaxPool2d(2), *second)

    assert rectified(stages(Block(nn.Conv2d(8, 16, 3)))).all == {"blocks.0.layer", "blocks.2.layer"}
    assert rectified(stages(nn.Sequential(), Block(nn.Conv2d(8, 16, 3)))).all  # one that does nothing
    for second in (Doubled(8, 16, 3), Loud(nn.Conv2d(8, 16, 3)), Residual(nn.Conv2d(8, 16, 3))):
        assert rectified(stages(Block(second))).all == set()
    for how in ("scaled_before", "scaled_behind", "normalised_before", "reshaped_before", "cast_before"):
        assert rectified(stages(Block(nn.Conv2d(8, 8, 3), how), Block(nn.Conv2d(8, 16, 3)))).all == set()


def test_what_comes_in_may_be_scaled_first() -> None:
    blocks = Block(nn.Conv2d(3, 8, 3), "scaled_before"), nn.MaxPool2d(2), Block(nn.Conv2d(8, 16, 3))
    assert rectified(Stages(False, *blocks)).all == {"blocks.0.layer", "blocks.2.layer"}


@pytest.mark.parametrize(("norm", "rectifiers"), [(False, {"one", "two"}), (True, set())])
def test_it_is_initialised_as_the_same_chain_of_modules(norm: bool, rectifiers: set[str]) -> None:
    net = made(usual, norm)
    net.layers = nn.ModuleList()
    assert rectified(net).all == rectifiers and normalised(net) == ({"two"} if norm else set())
    own = copy.deepcopy([net.one, nn.ReLU(), net.pool, net.two, net.norm, nn.ReLU(), nn.Flatten(), net.head])
    twin = nn.Sequential(OrderedDict(zip(["one", "a", "pool", "two", "norm", "b", "c", "head"], own, strict=True)))
    reports = [apply_(each, "natural", seed=0) for each in (net, twin)]
    priors = [[(layer.layer, layer.prior) for layer in report.drawn] for report in reports]
    assert priors[0] == priors[1] and len(priors[0]) == 2
    assert torch.equal(net.one.weight, twin.one.weight) and torch.equal(net.two.weight, twin.two.weight)


def test_what_may_be_a_part_of_a_larger_model_keeps_its_scales() -> None:
    net = made(usual)
    net.layers, net.two = nn.ModuleList(), nn.Conv2d(8, 2, 3)
    assert chain_of(net) and rectified(net).all == set()


def test_hooks_keep_the_scales() -> None:
    net = made(usual)
    net.layers = nn.ModuleList()
    assert rectified(net).all == {"one", "two"} and rectified(torch.compile(net)).all == {"one", "two"}
    net.register_forward_hook(lambda *_: None)
    assert rectified(net).hooked and not rectified(net).all


def test_hooks_of_parts_that_are_elsewhere_too() -> None:
    net = nn.Module()
    net.act = Block(nn.Identity())
    net.body = nn.Sequential(nn.Conv2d(3, 8, 3), net.act, nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU())
    around = Residual(net.body)
    around.act = net.act
    around.__class__ = type("Around", (Residual,), {"forward": calling})
    assert rectified(around).all == {"body.0", "body.3"}
    net.act.register_forward_hook(lambda *_: None)
    assert rectified(around).hooked == ("body.1",)


def calling(self: Any, x: Tensor) -> Tensor:
    return self.body(x)


def repeated(net: Net, x: Tensor) -> Tensor:
    x = net.norm(net.two(net.one(x))).relu()
    return net.norm(net.two(x)).relu()


def test_a_layer_that_is_called_twice_passes_nothing_on() -> None:
    net = made(repeated, norm=True)
    net.layers = nn.ModuleList()
    assert len(chain_of(net)) == 7 and normalised(net) == set()


def crossed(net: Any, x: Tensor) -> Tensor:
    x = net.norm(net.two(net.pool(net.one(x)))).relu()
    return net.other(net.three(x)).relu()


def test_layers_that_run_in_another_order_than_they_are_registered_pass_nothing_on() -> None:
    net = made(crossed, norm=True)
    net.layers = nn.ModuleList()
    net.three, net.other = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
    assert normalised(net) == {"two", "three"}
    net.one = net._modules.pop("one")
    assert normalised(net) == set()


class Volume(nn.Module):
    """The mean over two of three axes leaves a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv3d(3, 8, 3, stride=2), nn.Conv3d(8, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu()).relu().mean((2, 3))


class Loudly(nn.Conv2d):
    """Anything that is looked up in an instance raises."""

    @property
    def _call_impl(self) -> Any:
        raise RuntimeError("a property runs")

    output_size = forward_again = _call_impl


def test_modules_of_other_ranks_and_with_properties() -> None:
    assert chain_of(Volume()) == []
    assert rectified(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Loudly(8, 8, 3), nn.ReLU())).all == set()
    net = made(attributes)
    net.two = Loudly(8, 16, 3)
    assert chain_of(net) == []


def test_sequences_in_sequences() -> None:
    deep: nn.Module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU())
    for _ in range(2000):
        deep = nn.Sequential(deep)
    assert chain_of(deep) == []  # too deep to run
