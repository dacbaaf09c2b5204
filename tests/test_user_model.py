"""The user's model: how it is found, and how its state is saved."""

import importlib.util
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dwp_init.user_model import load_model, save_state

_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a Python module into the current folder; returns its name, a new one every time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        name = f"user_model_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(f"\n\n{text}\n")
        return name

    return write


def test_the_current_folder_holds_no_architectures(module: Callable[[str], str], tmp_path: Path) -> None:
    pytest.importorskip("timm")
    (tmp_path / "timm.py").write_text("1 / 0")
    assert isinstance(load_model("timm:test_vit"), nn.Module) and str(tmp_path) not in sys.path
    load_model(f"{module('from torch import nn; net = nn.Identity()')}:net")
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize(
    "spec", ["net", "net:", ":make", "net.py:make", "net.py:make()", "./net:make", "net:a-b", "a..b:c"]
)
def test_a_model_is_a_module_and_a_factory(spec: str) -> None:
    message = (
        "the model must be MODULE:FACTORY, such as my.nets:make_net, without .py, or timm:NAME or torchvision:NAME"
    )
    message += f"; got {spec!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_model(spec)


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        ("1 / 0", "net", "importing '{name}' failed: ZeroDivisionError: division by zero ({file}, line 3)"),
        ("def (", "net", "importing '{name}' failed: SyntaxError: "),
        ("import no_such", "net", "failed: ModuleNotFoundError: No module named 'no_such' ({file}, line 3)"),
        ("raise SystemExit(3)", "net", "importing '{name}' failed: SystemExit: 3 ({file}, line 3)"),
        ("def make():\n    {}['x']", "make", "calling {name}:make failed: KeyError: 'x' ({file}, line 4)"),
        ("def make(a):\n    pass", "make", "failed: TypeError: make() missing 1 required positional argument: 'a'"),
        ("def make():\n    return 3", "make", "gives a int, expected a torch.nn.Module or a function that makes one"),
        ("net = 3", "net", "{name}:net gives a int, expected a torch.nn.Module or a function that makes one"),
        ("def make():\n    pass\nx = _y = 1", "mak", "'{name}' has no 'mak'; did you mean make?"),
        ("def make():\n    pass\nx = _y = 1", "xyz", "'{name}' has no 'xyz'; it has make"),
        ("", "xyz", "'{name}' has no 'xyz'; it has no function"),
        ("class Zoo:\n    small = 3", "Zoo.big", "'{name}' has no 'Zoo.big'; it has"),
        ("x = 3", "x.y.z", "'{name}' has no 'x.y.z'; it has "),
    ],
)
def test_errors_of_the_users_module(
    module: Callable[[str], str], tmp_path: Path, text: str, attribute: str, message: str
) -> None:
    name = module(text)
    with pytest.raises((ValueError, TypeError)) as caught:
        load_model(f"{name}:{attribute}")
    found = str(caught.value)
    assert message.format(name=name, file=tmp_path / f"{name}.py") in found
    assert len(found.splitlines()) == 1 and (message[-1] != "'" or found.endswith("'"))


def test_a_module_that_is_not_there() -> None:
    message = "importing 'no_such.nets' failed: ModuleNotFoundError: No module named 'no_such'"
    with pytest.raises(ValueError, match=f"^{message}$"):
        load_model("no_such.nets:make")


FACTORY = "from torch import nn\ndef make(n, *, bias=True):\n    return nn.Conv2d(1, n, 3, bias=bias)\nnet = make(1)"


@pytest.mark.parametrize("arguments", ["(5, bias=False)", "(bias=False,n=5)", "( 5,bias=bool )"])
def test_a_factory_takes_literals(module: Callable[[str], str], arguments: str) -> None:
    spec = f"{module(FACTORY)}:make{arguments}"
    if "bool" in arguments:
        with pytest.raises(
            ValueError, match=r"must be Python literals, such as make\(10, width=32, .*; got 'make\( 5,bias"
        ):
            load_model(spec)
    else:
        net = load_model(spec)
        assert isinstance(net, nn.Conv2d) and net.out_channels == 5 and net.bias is None


NO_LITERALS = ["(*[5])", "(**{'n': 5})", "(5)(6)", "(5", "(5).to('cpu')", "(__import__('os'))", "(()", "(5); 6", "(\0)"]


@pytest.mark.parametrize("call", NO_LITERALS)
def test_nothing_but_literals_is_evaluated(module: Callable[[str], str], call: str) -> None:
    with pytest.raises(ValueError, match=re.escape("the arguments must be Python literals, such as make(")):
        load_model(f"{module(FACTORY)}:make{call}")
    with pytest.raises(ValueError, match="net is a Conv2d, which takes no arguments"):
        load_model(f"{module(FACTORY)}:net(3)")


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_architectures_go_by_name(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package)
    assert load_model(f"{package}:resnet18(num_classes=7)").get_parameter("fc.weight").shape == (7, 512)
    with pytest.raises(ValueError, match=f"{package} has no 'resnet19'; did you mean .*resnet18"):
        load_model(f"{package}:resnet19")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"{package}:resnet18 needs the package {package}: pip install {package}$"):
        load_model(f"{package}:resnet18")


def test_a_detector_downloads_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **b: pytest.fail("a download"))
    load_model("torchvision:ssdlite320_mobilenet_v3_large")


def test_views_that_differ_are_saved_each(tmp_path: Path) -> None:
    net, x = nn.Conv2d(1, 1, 3), torch.arange(9.0).view(3, 3)
    net.register_buffer("x", x)
    net.register_buffer("turned", x.T)
    save_state(net, tmp_path / "a.safetensors")
    saved = load_file(tmp_path / "a.safetensors")
    assert torch.equal(saved["x"], x) and torch.equal(saved["turned"], x.T)


def test_any_memory_format_and_equal_but_separate_tensors_are_saved(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).half()
    save_state(net.to(memory_format=torch.channels_last), tmp_path / "a.safetensors")
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == net.state_dict().keys()
    assert torch.equal(saved["0.weight"], net[0].weight)
