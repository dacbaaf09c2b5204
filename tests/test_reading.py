"""Forward passes that are read: which of them hand one tensor on."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init import apply_
from dwp_init.steps import chain_of
from tests.models import Snapshot, changed
from tests.no_chains import NO_CHAINS
from tests.passes import Forward, Net, attributes, flat, looping, made, methods, usual


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (usual, "one ReLU pool two norm ReLU AdaptiveAvgPool2d Flatten Dropout head Changed"),
        (methods, "one ReLU MaxPool2d two ReLU AdaptiveAvgPool2d Flatten head Changed"),
        (attributes, "one ReLU AvgPool2d two ReLU AdaptiveAvgPool2d head Changed"),
        (flat, "one ReLU pool two ReLU AvgPool2d Flatten head Flatten Flatten"),
        (looping, "one ReLU layers.1 ReLU pool two ReLU AdaptiveMaxPool2d Changed"),
    ],
)
def test_what_is_handed_on(forward: Forward, expected: str, snapshot: Snapshot) -> None:
    net = made(forward)
    before = snapshot(net)
    names = {module: name for name, module in net.named_modules()}
    assert " ".join(names.get(module, type(module).__name__) for module in chain_of(net)) == expected
    assert changed(net, before, snapshot) == set()
    net(torch.rand(2, 3, 8, 8))  # it runs


def test_options_of_functions_count() -> None:
    (pool,) = (module for module in chain_of(made(methods)) if isinstance(module, nn.MaxPool2d))
    assert (pool.kernel_size, pool.stride) == (2, (2, 2))

    net = made(leaky)
    assert [module.negative_slope for module in chain_of(net) if isinstance(module, nn.LeakyReLU)] == [0.3, 0.2]


def leaky(net: Net, x: Tensor) -> Tensor:
    return F.leaky_relu(net.two(F.leaky_relu(net.one(x), 0.3)), negative_slope=0.2, inplace=True)


@pytest.mark.parametrize("forward", NO_CHAINS)
def test_what_is_not_handed_on(forward: Forward, snapshot: Snapshot) -> None:
    net = made(forward)
    before = snapshot(net)
    assert chain_of(net) == []
    assert changed(net, before, snapshot) == set() and net.kept == [0]
    if "layers" not in forward.__code__.co_names:
        net.layers = nn.ModuleList()
    kept = net.two.weight.clone()
    report = apply_(net, "natural", seed=0)
    assert torch.equal(net.two.weight, kept) and report.initialized == ["one"]


def test_what_is_handed_on_changes_more_than_the_stem() -> None:
    net = made(as_it_is)
    net.layers = nn.ModuleList()
    kept = net.two.weight.clone()
    assert apply_(net, "natural", seed=0).initialized == ["one", "two"]
    assert not torch.equal(net.two.weight, kept)


def as_it_is(net: Net, x: Tensor) -> Tensor:
    """The control: nothing keeps this one from being read."""
    return net.two(net.pool(F.relu(net.one(x)))).relu()


def test_a_module_that_calls_itself() -> None:
    net = made(with_itself)
    object.__setattr__(net, "_modules", {**net._modules, "again": net})
    assert chain_of(net) == []


def with_itself(net: Any, x: Tensor) -> Tensor:
    return net.again(net.one(x))
