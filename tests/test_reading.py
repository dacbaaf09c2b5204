"""Forward passes that are read: which of them hand one tensor on, and what apply_ does with them."""

import contextlib
import copy
import functools
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import relu

from dwp_init import apply_
from dwp_init.chain import normalised, rectified
from dwp_init.steps import chain_of
from tests.chains import Doubled, Loud, Residual
from tests.models import Snapshot, changed

Forward = Callable[..., Any]
SCALE = 255
LIMIT = nn.Linear(1, 1)


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


def looping(net: Net, x: Tensor) -> Tensor:
    for layer in net.layers:
        y = layer(x)
        x = torch.relu(y)
    return net.two(net.pool(x)).relu().amax((2, 3), keepdim=True).softmax(1)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (usual, "one ReLU pool two norm ReLU AdaptiveAvgPool2d Flatten Dropout head Changed"),
        (methods, "one ReLU MaxPool2d two ReLU AdaptiveAvgPool2d Flatten head Changed"),
        (attributes, "one ReLU AvgPool2d two ReLU AdaptiveAvgPool2d head Changed"),
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


def with_shortcut(net: Net, x: Tensor) -> Tensor:
    return net.pool(x) + net.two(net.pool(net.one(x).relu()))[:, :3]


def with_inner_shortcut(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.one(x))
    return net.two(F.relu(net.layers[1](x)) + x)


def in_place_shortcut(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.one(x))
    y = net.layers[1](x)
    y += x
    return net.two(y)


def by_method(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.one(x))
    return net.two(net.layers[1](x).add(x))


def as_argument(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.one(x))
    return net.two(torch.add(net.layers[1](x), x))


def with_an_older_one(net: Net, x: Tensor) -> Tensor:
    y = F.relu(net.one(x))
    net.layers[1](y)
    return net.two(y)


def returning_an_older_one(net: Net, x: Tensor) -> Tensor:
    y = F.relu(net.one(x))
    x = net.two(y)
    return y


def concatenated(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.one(x))
    return net.two(torch.cat((net.layers[1](x)[:, :4], x[:, :4]), 1))


def scaled(net: Net, x: Tensor) -> Tensor:
    return net.two(0.1 * net.one(x).relu()).relu()


def shuffled(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    return net.two(x.view(-1, 8, 4, 4)).relu()


def gated(net: Net, x: Tensor) -> Tensor:
    x = net.one(x)
    return net.two(x * x.sigmoid()).relu()


def by_value(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    return net.two(x) if x.mean() > 0 else x


def by_flag(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    if net.training:
        x = x * 2
    return net.two(x).relu()


def keeping(net: Net, x: Tensor) -> Tensor:
    net.kept = net.one(x).relu()
    return net.two(net.kept).relu()


def appending(net: Net, x: Tensor) -> Tensor:
    net.kept.append(x)
    return net.two(net.one(x).relu()).relu()


def weight_used(net: Net, x: Tensor) -> Tensor:
    return F.conv2d(net.one(x).relu(), net.two.weight).relu()


def many(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    x = net.one(x).relu()
    return net.two(x).relu(), x


def in_a_dict(net: Net, x: Tensor) -> dict[str, Tensor]:
    return {"logits": net.two(net.one(x).relu()).relu()}


def returning_nothing(net: Net, x: Tensor) -> None:
    x = net.two(net.one(x).relu())


def returning_early(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x))
    return net.one(x)


def in_a_context(net: Net, x: Tensor) -> Tensor:
    with contextlib.suppress(RuntimeError):
        x = net.two(net.one(x).relu())
    return x


def trying(net: Net, x: Tensor) -> Tensor:
    try:
        return net.two(net.one(x).relu())
    except RuntimeError:
        return x


def generating(net: Net, x: Tensor) -> Iterator[Tensor]:
    yield net.two(net.one(x).relu())


async def waiting(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x).relu())


def with_a_lambda(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    add = lambda y: x + y  # noqa: E731
    return add(net.layers[1](x))


def with_a_closure(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    return net.two(torch.stack([part.abs() for part in (x, x)]).amax(0))


def with_a_walrus(net: Net, x: Tensor) -> Tensor:
    return net.two(net.layers[1](y := net.one(x)).relu() + y)


def with_a_hidden_name(net: Net, x: Tensor) -> Tensor:
    F = net
    return F.two(F.one(x).relu()).relu()


def shadowing(net: Net, x: Tensor, relu: Forward = torch.neg) -> Tensor:
    return net.two(relu(net.one(x)))


def with_a_second_image(net: Net, x: Tensor, other: Tensor) -> Tensor:
    return net.two(net.one(x + other).relu()).relu()


def keyword(net: Net, x: Tensor) -> Tensor:
    return net.two(F.relu(input=net.one(x))).relu()


def unpacked(net: Net, *x: Tensor) -> Tensor:
    return net.two(F.relu(net.one(*x))).relu()


def with_indices(net: Net, x: Tensor) -> Tensor:
    return net.two(F.max_pool2d(net.one(x), 2, return_indices=True)[0]).relu()


def by_forward(net: Net, x: Tensor) -> Tensor:
    return net.two.forward(net.one(x).relu()).relu()


def over_all(net: Net, x: Tensor) -> Tensor:
    for layer in net.children():
        x = layer(x)
    return x


def many_times(net: Net, x: Tensor) -> Tensor:
    x = net.one(x)
    for _ in range(3):
        x = net.layers[1](x)
    return x


def and_no_more(net: Net, x: Tensor) -> Tensor:
    for layer in net.layers:
        x = layer(x)
    else:
        x = net.two(x)
    return x


def of_the_loop(net: Net, x: Tensor) -> Tensor:
    for layer in net.layers:
        x = layer(x)
    return layer(x)


def of_a_property(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x).relu()).relu().flatten(net.last)


def from_a_call(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x).relu()).relu().flatten(int(random.random()))


def of_the_class(net: Net, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(net.two(net.one(x).relu()).relu(), net.size)


def resized(net: Net, x: Tensor) -> Tensor:
    return net.two(F.interpolate(net.one(x).relu(), scale_factor=2)).relu()


def with_a_stranger(net: Net, x: Tensor) -> Tensor:
    return net.two(LIMIT(net.one(x)).relu()).relu()


def changed_later(net: Net, x: Tensor) -> Tensor:
    x = net.one(x).relu()
    x[0] = 0
    return net.two(x).relu()


def deleting(net: Net, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    del x
    return net.two(y)


def asserting(net: Net, x: Tensor) -> Tensor:
    assert net.kept.append(x) is None
    return net.two(net.one(x)).relu()


def replaced(net: Net, x: Tensor) -> Tensor:
    net = net.layers
    return net[0](x)


def empty(net: Net, x: Tensor) -> Tensor:
    return x


def alone(net: Net) -> Tensor:
    return net.mean


def an_image(net: Net, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    return net.two(net.pool(net.one(x).relu())).relu().view(n, 4, 2, 2, h // 2, w // 2).permute(0, 1, 4, 2, 5, 3)


def grey(net: Net, x: Tensor) -> Tensor:
    return net.two(net.pool(net.one(x).relu())).relu().mean(1, keepdim=True)


def grey_at_once(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x.mean(1, keepdim=True).expand(x.shape)).relu()).relu()


def of_a_mean(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x.mean(1, keepdim=True)).relu()).relu()


def on_rows(net: Net, x: Tensor) -> Tensor:
    x = net.two(net.pool(net.one(x).relu())).relu()
    return net.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def of_pixels(net: Net, x: Tensor) -> Tensor:
    x = net.two(net.pool(net.one(x).relu())).relu()
    return F.softmax(x.view(-1, 16), 1).view(x.size(0), 16, 4, 4)


def flat_and_back(net: Net, x: Tensor) -> Tensor:
    return net.two(net.pool(net.one(x).relu())).relu().flatten(1).view(-1, 16, 4, 4)


def with_a_slope_of_two(net: Net, x: Tensor) -> Tensor:
    return net.two(F.leaky_relu(net.one(x), (0.1,))).relu()


def with_no_slope(net: Net, x: Tensor) -> Tensor:
    return net.two(F.leaky_relu(net.one(x), None)).relu()


def with_a_name_of_the_class(net: Net, x: Tensor) -> Tensor:
    return __act(net.two(net.one(x)))  # in a class, _Net__act


__act = relu


def with_words(net: Net, x: Tensor) -> Tensor:
    return net.two(F.max_pool2d(net.one(x), "two")).relu()


def with_nothing(net: Net, x: Tensor) -> Tensor:
    return net.two(F.avg_pool2d(net.one(x), 2, [None, 2])).relu()


NO_CHAINS = [
    *(with_shortcut, with_inner_shortcut, in_place_shortcut, by_method, as_argument, with_an_older_one),
    *(
        returning_an_older_one,
        concatenated,
        scaled,
        shuffled,
        gated,
        by_value,
        by_flag,
        keeping,
        appending,
        weight_used,
        many,
    ),
    *(in_a_dict, returning_nothing, returning_early, in_a_context, trying, generating, waiting, with_a_lambda),
    *(with_a_closure, with_a_walrus, with_a_hidden_name, shadowing, with_a_second_image, keyword, unpacked),
    *(with_indices, by_forward, over_all, many_times, and_no_more, of_the_loop, of_a_property, from_a_call),
    *(of_the_class, resized, with_a_stranger, changed_later, deleting, asserting, replaced, empty, alone),
    *(an_image, grey, with_words, with_nothing, grey_at_once, of_a_mean, on_rows, of_pixels, flat_and_back),
    *(with_a_slope_of_two, with_no_slope, with_a_name_of_the_class),
]


@pytest.mark.parametrize("forward", NO_CHAINS)
def test_what_is_not_handed_on(forward: Forward, snapshot: Snapshot) -> None:
    net = made(forward)
    before = snapshot(net)
    assert chain_of(net) == []
    assert changed(net, before, snapshot) == set() and net.kept == [0]
    kept = net.two.weight.clone(), net.one.weight.std()
    report = apply_(net, "natural", seed=0)
    assert torch.equal(net.two.weight, kept[0]) and report.initialized == ["one"]


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


def test_a_module_that_calls_itself() -> None:
    net = made(with_itself)
    object.__setattr__(net, "_modules", {**net._modules, "again": net})
    assert chain_of(net) == []


def with_itself(net: Any, x: Tensor) -> Tensor:
    return net.again(net.one(x))


def called_otherwise(name: str) -> Any:
    kind = type("Otherwise", (type(made(usual)),), {name: lambda self, *given: getattr(nn.Module, name)(self, *given)})
    return kind()


@pytest.mark.parametrize("name", ["__call__", "_call_impl", "_wrapped_call_impl", "__getattr__"])
def test_what_is_called_otherwise_is_not_read(name: str) -> None:
    assert chain_of(called_otherwise(name)) == []
    part = type("Otherwise", (nn.ReLU,), {name: lambda self, *given: getattr(nn.Module, name)(self, *given)})()
    net = made(attributes)
    net.act = part
    assert chain_of(net) == [] or name == "__getattr__"  # by which a part of torch is not called
    net = made(usual)
    vars(net.two if name == "_call_impl" else net)[name] = lambda *given: None
    assert chain_of(net) == [] or name in ("__getattr__", "__call__")  # of which an instance's own do not count


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
    hidden = type("Meta", (type,), {"forward": property(lambda kind: usual)})("Hidden", (Net,), {"forward": gated})
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


SOURCE = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.__hidden = nn.Conv2d(3, 8, 3)
        self.open = nn.Conv2d(3, 8, 3)
        self._modules["__hidden"] = self.open

    def forward(self, x):
        return self.open(x).relu()

class Decorated(Plain):
    @torch.no_grad()
    def forward(self, x):
        return self.open(x).relu()

class Private(Plain):
    def forward(self, x):
        return self.__hidden(x).relu()

class OneLine(Plain):
    def f(self, x, g=lambda self, x: self.open(x) + x): return self.open(x).relu()
    forward = f.__defaults__[0]
"""


def imported(path: Path, source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    path.write_text(source)
    exec(compile(source, path, "exec"), names)
    return names


def test_the_source_must_be_that_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    nets = imported(path, SOURCE)
    net = nets["Plain"]()
    assert [type(each) for each in chain_of(net)] == [nn.Conv2d, nn.ReLU]
    for other in ("Decorated", "Private", "OneLine"):
        assert chain_of(nets[other]()) == []
    for other in (SOURCE.replace("relu()", "tanh()"), f"\n{SOURCE}", "def (", ""):
        path.write_text(other)
        assert chain_of(net) == []
    path.unlink()
    assert chain_of(net) == []
    exec(SOURCE, nets)  # no file at all
    assert chain_of(nets["Plain"]()) == []


RESIDUAL = """
    def other(self, x):
        return self.open(x).relu()
    def forward(self, x):
        return self.open(x) + x
"""


@pytest.mark.parametrize("mark", ["\f\n\f\n", 'TEXT = "\u2028\u2028"\n'])
def test_lines_are_counted_as_python_does(tmp_path: Path, mark: str) -> None:
    nets = imported(tmp_path / "nets.py", mark + SOURCE.partition("\n    def forward")[0] + RESIDUAL)
    assert chain_of(nets["Plain"]()) == []


def test_warnings_of_a_file_are_not_repeated(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets = imported(tmp_path / "nets.py", SOURCE + "\nTEXT = 1 is 1, '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chain_of(nets["Plain"]())


class Sourceless:
    def get_source(self, name: str) -> str:
        raise KeyError(name)


def test_a_loader_without_the_source() -> None:
    nets: dict[str, Any] = {"__loader__": Sourceless(), "__name__": "nets"}
    exec(compile(SOURCE, "/nowhere/nets.py", "exec"), nets)
    assert chain_of(nets["Plain"]()) == []


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
    assert rectified(around).hooked == ("body.1",) or rectified(around).hooked == ("act",)


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
