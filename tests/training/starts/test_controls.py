import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.starts.base import KAIMING, initialize_, spatial_convolutions
from training.starts.controls import DELTA, DIRAC, FAN_OUT, LSUV, ORTHOGONAL, OTHER_DRAWS, OTHER_SEED, OWN, XAVIER
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


def test_fan_out_counts_outputs() -> None:
    layer = nn.Sequential(nn.Conv2d(64, 32, 3))
    initialize_(layer, FAN_OUT, 0)
    assert layer[0].weight.var().item() == pytest.approx(2 / (32 * 9), rel=0.03)


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (nn.Conv2d(3, 3, 3, padding=1), [0, 1, 2]),
        (nn.Conv2d(3, 5, (5, 3), padding=(2, 1)), [0, 1, 2]),
        (nn.Conv2d(3, 2, 7, padding=3), [0, 1]),
        (nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3), [0, None, 1, None, 2]),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), [0, 1, None, None, 2, 3]),
        (nn.ConvTranspose2d(3, 5, 3, padding=1), [0, 1, 2]),
        (nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2), [0, 1, 2, 3]),
    ],
)
def test_dirac_keeps_the_image_in_the_first_outputs_of_each_group(layer: nn.Conv2d, shown: list[int | None]) -> None:
    before = layer.weight.detach().clone()
    nn.init.zeros_(layer.bias)
    drawn = initialize_(nn.Sequential(layer), DIRAC, 0)
    x = torch.rand(2, layer.in_channels, 9, 9)
    for output, input_ in enumerate(shown):
        if input_ is not None:
            assert torch.equal(layer(x)[:, output], x[:, input_])
    changed = (layer.weight != before).sum().item() / before.numel()
    assert drawn == pytest.approx(changed) == min(layer.in_channels / layer.out_channels, 1)


def test_other_draws_have_the_law_of_the_models_own_and_everything_else_of_it(make: Make) -> None:
    own, made, twin = make("cifar", OWN), make("cifar", OTHER_DRAWS), make("cifar", OWN, seed=OTHER_SEED)
    convolutions = spatial_convolutions(own)
    assert made.drawn == 1 and own.drawn == 0
    for name, value in made.state_dict().items():
        ours, theirs = own.state_dict()[name], twin.state_dict()[name]
        inside = name.rpartition(".")[0] in convolutions
        assert torch.equal(value, theirs if inside else ours) and torch.equal(value, ours) == (not inside)
        if inside:
            bound = own.get_submodule(name.rpartition(".")[0]).weight[0].numel() ** -0.5  # PyTorch's law is U(±bound)
            assert value.abs().max() <= bound and (value.numel() < 100 or value.abs().max() > 0.95 * bound)


@pytest.mark.parametrize("other", [nn.Conv2d(3, 5, 3), nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(4, 3, 3), nn.ReLU()])
def test_other_draws_of_another_network_are_refused(other: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"must build the same network, but 0 is .* there, and Conv2d\(3, 4"):
        initialize_(nn.Sequential(nn.Conv2d(3, 4, 3)), OTHER_DRAWS, 0, again=lambda seed: nn.Sequential(other))
