import sys

import pytest
import torch
from torch import nn

from training.networks.registry import build


@pytest.mark.parametrize(
    ("name", "filters", "message"),
    [
        ("lenet", (2,), "unknown network 'lenet'; there are mnist, cifar, cifar-source, resnet.*, and timm:NAME"),
        ("resnet", (), r"numbers of channels, 1 or more each; got \(\)"),
        ("vgg", (2, 0), r"numbers of channels, 1 or more each; got \(2, 0\)"),
    ],
)
def test_names_and_filters(name: str, filters: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, filters, 10, (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet(width=3)", "resnet has no argument 'width'; it takes blocks, stem, stride$"),
        ("mnist(blocks=3)", "mnist has no argument 'blocks'; it takes none"),
        ("resnet(filters=(2,))", "no argument 'filters'"),
        ("vgg(stride=0)", "stride of vgg is a whole number, 1 or more; got 0"),
        ("vgg(stride=True)", "whole number, 1 or more; got True"),
        ("vgg(stride='2')", "whole number, 1 or more; got '2'"),
        ("vgg(stride=1 + 1)", r"stride=1 \+ 1 of 'vgg\(stride=1 \+ 1\)' is not a literal; write numbers"),
        ("vgg(stride=exit())", r"stride=exit\(\) of .* is not a literal"),
        ("vgg(stride={[]: 1})", "is not a literal"),
    ],
)
def test_unsuitable_arguments(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, (2, 2), 10, (3, 32, 32))


@pytest.mark.parametrize(
    "arguments", ["(", "(stride=2", "(2)", "(*[2])", "(**{})", "()()", "(stride=2) + 1", "(stride=2, stride=2)", "(\0)"]
)
def test_arguments_are_those_of_one_call(arguments: str) -> None:
    with pytest.raises(
        ValueError, match=r"written NAME\(key=value, …\), as in resnet\(blocks=2, stride=2\); got 'vgg\("
    ):
        build(f"vgg{arguments}", (2, 2), 10, (3, 32, 32))


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_arguments_keep_the_random_numbers(name: str) -> None:
    """The default written out, or a stride, gives the same weights for the same seed."""
    states = []
    for arguments in ("", "()", "(stride=1)", "(stride=2)"):
        torch.manual_seed(0)
        states.append(build(name + arguments, (2, 4), 10, (3, 32, 32)).state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(value, states[0][key]) for key, value in state.items())


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "resnet18(channels=(8, 8, 16, 16), stem_width=8)"]
)
def test_networks_of_timm(name: str) -> None:
    """They are untrained, and the same for the same seed."""
    pytest.importorskip("timm")
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(build(f"timm:{name}", (), 7, (1, 32, 32)).eval())
    images = torch.rand(2, 1, 32, 32)
    assert networks[0](images).shape == (2, 7) and torch.equal(*(network(images) for network in networks))
    assert next(module for module in networks[0].modules() if isinstance(module, nn.Conv2d)).in_channels == 1


@pytest.mark.parametrize(
    ("name", "filters", "message"),
    [
        ("resnet19", (), "timm has no network 'resnet19'; did you mean timm:resnet1"),
        ("?", (), r"timm has no network '\?'; see timm\.list_models\(\)"),
        ("hf-hub:timm/resnet18.a1_in1k", (), "timm has no network 'hf-hub:timm/resnet18.a1_in1k'"),
        ("resnet18", (8, 16), r"takes no filters, because the names of timm contain the width.*got \(8, 16\)"),
        ("resnet18(wide=1)", (), r"'timm:resnet18' does not take wide=1 \(.*; its class ResNet takes .*stem_width, "),
        ("resnet18(block='x')", (), r"'timm:resnet18' does not take block='x' \(AttributeError: "),
        ("regnetx_002(depth=2)", (), r"does not take depth=2 \(AssertionError\); its class RegNet takes cfg, "),
        ("resnet18(pretrained=True)", (), "pretrained of 'timm:resnet18' cannot be set: networks are untrained"),
    ],
)
def test_what_timm_does_not_have(name: str, filters: tuple[int, ...], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        build(f"timm:{name}", filters, 10, (3, 32, 32))


def test_a_missing_timm_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm:resnet18' needs the package timm; install it with: pip install timm"):
        build("timm:resnet18", (), 10, (3, 32, 32))
