import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.starts.base import KAIMING, initialize_, spatial_convolutions
from training.starts.controls import DELTA, LSUV, ORTHOGONAL, XAVIER
from training.starts.priors import DWP_LSUV, DWP_ORTHOGONAL

Make = Callable[..., nn.Module]


def test_the_laws_of_kaiming_and_xavier() -> None:
    for kind, fans in {nn.Conv2d: (64, 32), nn.ConvTranspose2d: (32, 64)}.items():
        layer = nn.Sequential(kind(64, 32, 3))
        for start, variance in {KAIMING: 2 / (fans[0] * 9), XAVIER: 2 / (sum(fans) * 9)}.items():
            initialize_(layer, start, 0)
            assert layer[0].weight.var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(
    ("start", "out", "into"), [(ORTHOGONAL, 8, 4), (ORTHOGONAL, 40, 2), (DWP_ORTHOGONAL, 8, 4), (DWP_ORTHOGONAL, 16, 2)]
)
def test_orthogonal_gram_matrices(out: int, into: int, start: str, priors: list) -> None:
    layer = nn.Sequential(nn.Conv2d(into, out, 3))
    initialize_(layer, start, 0, priors=priors)
    matrix = layer[0].weight.detach().flatten(1)
    gram = matrix @ matrix.T if out <= into * 9 else matrix.T @ matrix
    scale = layer[0].weight.square().sum() / len(gram)
    torch.testing.assert_close(gram, scale * torch.eye(len(gram)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [3, 7])
def test_delta_orthogonal_keeps_norms(k: int) -> None:
    layer = nn.Conv2d(4, 6, k, padding="same", padding_mode="circular", bias=False)
    initialize_(nn.Sequential(layer), DELTA, 0)
    x = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    gain = math.sqrt(2 * 6 / 4)  # He's: mean squares double from input to output channel
    torch.testing.assert_close(layer(x).flatten(1).norm(dim=1), gain * x.flatten(1).norm(dim=1))
    taps = layer.weight.detach().clone()
    taps[:, :, k // 2, k // 2] = 0
    assert not taps.any()


@pytest.mark.parametrize(("into", "out", "groups"), [(6, 4, 1), (6, 6, 6), (4, 8, 2)])
def test_where_delta_orthogonal_cannot_be_it_is_orthogonal(into: int, out: int, groups: int) -> None:
    layer = nn.Sequential(nn.Conv2d(into, out, 3, groups=groups))
    initialize_(layer, DELTA, 0)
    assert (layer[0].weight != 0).all()


@pytest.mark.parametrize("network", ["cifar", "convmixer", "resnet"])
@pytest.mark.parametrize("start", [LSUV, DWP_LSUV])
def test_lsuv_makes_unit_variances(network: str, start: str, make: Make, images: torch.Tensor) -> None:
    pytest.importorskip("lsuv")
    made = make(network, start).eval()
    found: list[float] = []
    for layer in spatial_convolutions(made).values():
        layer.register_forward_hook(lambda module, inputs, output: found.append(output.std().item()))
    made(images)
    assert found == pytest.approx([1.0] * len(found), abs=0.02)
    if start == LSUV:
        matrix = next(iter(spatial_convolutions(made).values())).weight.detach().flatten(1)
        gram = matrix @ matrix.T
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-4, rtol=1e-4)


def test_without_its_package_lsuv_says_how_to_get_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lsuv", None)
    with pytest.raises(ImportError, match=r"pip install 'lsuv>=0.3', or leave LSUV out"):
        make("cifar", LSUV)
