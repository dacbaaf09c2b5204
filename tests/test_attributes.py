"""What is looked at in modules and their classes, and that nothing of them runs."""

import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.steps import chain_of
from tests.no_chains import NoChains
from tests.passes import Block, Net, Stages, attributes, looping, made, methods, usual


def called_otherwise(name: str) -> Any:
    kind = type("Otherwise", (type(made(usual)),), {name: lambda self, *given: getattr(nn.Module, name)(self, *given)})
    return kind()


@pytest.mark.parametrize("name", ["__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__getattribute__"])
def test_what_is_called_otherwise_is_not_read(name: str) -> None:
    assert chain_of(called_otherwise(name)) == []
    net = made(attributes)
    net.act = type("Otherwise", (nn.ReLU,), {name: lambda self, *given: getattr(nn.Module, name)(self, *given)})()
    assert bool(chain_of(net)) == (
        name in ("__getattr__", "__getattribute__")
    )  # which no call of a part of torch needs


@pytest.mark.parametrize("name", ["__call__", "_call_impl", "_wrapped_call_impl", "forward"])
def test_what_an_instance_calls_instead_is_not_read(name: str) -> None:
    for place in ("", "two"):
        net = made(usual)
        vars(net.get_submodule(place))[name] = lambda *given: None
        assert chain_of(net) == []


class Box(nn.Module):
    """Holds a layer, and gives another one out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 16, 3)

    def __getattr__(self, name: str) -> Any:
        return torch.neg if name == "layer" else super().__getattr__(name)


def boxed(net: Any, x: Tensor) -> Tensor:
    return net.box.layer(net.one(x)).relu()


def test_what_hides_a_part_counts() -> None:
    net = made(boxed)
    net.box = Box()
    assert chain_of(net) == []
    net = made(usual)
    vars(net)["two"] = nn.Identity()
    assert chain_of(net) == []
    net = type("Kernel", (type(made(methods)),), {"kernel": property(lambda self: 1, lambda self, value: None)})()
    vars(net)["kernel"] = 2
    assert chain_of(net) == []
    net = type("Act", (type(made(attributes)),), {"act": property(lambda self: torch.neg, lambda self, value: None)})()
    vars(net)["act"] = F.relu
    assert chain_of(net) == []
    net = Stages(True, Block(nn.Conv2d(3, 8, 3)), nn.MaxPool2d(2), Block(nn.Conv2d(8, 16, 3)))
    assert chain_of(net)
    vars(net)["classify"] = torch.neg
    assert chain_of(net) == []


class Iterated(nn.Sequential):
    def __iter__(self) -> Iterator[nn.Module]:
        raise RuntimeError("it runs")


class Sizes(tuple[int, ...]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("it runs")


class Odd(int):
    def __gt__(self, other: object) -> bool:
        raise RuntimeError("it runs")


def test_nothing_of_a_model_runs() -> None:
    net = made(methods)
    assert chain_of(net)
    for net.kernel in (Sizes((2, 2)), (2, Odd(2))):
        assert chain_of(net) == []
    part = Iterated(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert chain_of(nn.Sequential(part, nn.Conv2d(8, 16, 3, 2), nn.ReLU())) == []
    holed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    holed.add_module("2", None)
    assert chain_of(holed) == []


def of_a_lazy_name(net: Net, x: Tensor) -> Tensor:
    return torch._dynamo.nonstrict_trace(net.one(x))


def test_nothing_is_imported() -> None:
    command = [sys.executable, "-c", LAZY]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert ended.stdout.split() == ["[]", "False", "[]"]


LAZY = """
import sys, torch.nn.functional as F
old = F.relu
F.relu = lambda x, inplace=False: 2 * old(x)
from tests.test_attributes import chain_of, made, of_a_lazy_name, usual
before = "torch._dynamo" in sys.modules
print(chain_of(made(of_a_lazy_name)), before != ("torch._dynamo" in sys.modules), chain_of(made(usual)))
"""


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_what_an_instance_or_its_class_has_instead_counts() -> None:
    net = made(usual)
    net.forward = functools.partial(usual, net)
    assert chain_of(net) == []
    net = made(attributes)
    net.act = torch.neg
    assert chain_of(net) == []
    shadowed = type("Shadowed", (type(made(usual)),), {"two": property(lambda self: self.one)})
    assert chain_of(shadowed()) == []
    assert chain_of(torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)))) == []
    static = type("Static", (Net,), {"forward": staticmethod(usual)})
    assert chain_of(static()) == []
    hidden = type("Meta", (type,), {"forward": property(lambda kind: usual)})(
        "Hidden", (Net,), {"forward": NoChains.gated}
    )
    assert chain_of(hidden()) == []


def test_lists_whose_places_are_not_in_order() -> None:
    net = made(attributes)
    net.layers = nn.ModuleList()
    net.layers.add_module("1", nn.Conv2d(3, 8, 3))
    net.layers.add_module("0", nn.Conv2d(3, 8, 3))
    assert chain_of(net) == []


def test_parts_in_a_list_of_ones_own() -> None:
    class Reversed(nn.ModuleList):
        def __iter__(self) -> Iterator[nn.Module]:
            return reversed(list(self.children()))

    net = made(looping)
    net.layers = Reversed(net.layers)
    assert chain_of(net) == []
