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


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
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
    ],
)
def test_what_timm_does_not_have(name: str, filters: tuple[int, ...], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        build(f"timm:{name}", filters, 10, (3, 32, 32))


def test_a_missing_timm_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm:resnet18' needs the package timm; .*pip install 'dwp_init\[timm\]'"):
        build("timm:resnet18", (), 10, (3, 32, 32))
