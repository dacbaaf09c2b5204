from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from dwp_init.convolutions import he_rms
from tests.training.starts.conftest import NETWORKS, UNSUITED
from training.networks.registry import build
from training.starts import base
from training.starts.base import (
    KAIMING,
    STARTS,
    Start,
    add_start,
    check_starts,
    each,
    find_start,
    initialize_,
    kind_of,
    spatial_convolutions,
    start_names,
)
from training.starts.controls import OTHER_DRAWS, OWN

Make = Callable[..., nn.Module]
BY_KERNELS = [name for name, start in STARTS.items() if {"priors", "learned"} & {*start.needs}]
BY_MORE = [name for name, start in STARTS.items() if {"batch", "again", "files"} & {*start.needs}]
BY_LSUV = ("LSUV", "dwp, LSUV")
WHOLE = ("anyinit, normal", "anyinit, sinusoidal", "Kaiming, 1×1 too")
KEEPING = tuple(name for name, start in STARTS.items() if start.keeps_rest)
WITH_HES_RMS = ("orthogonal", "delta-orthogonal", "white noise", "dwp", "dwp, orthogonal", "dwp, centred")
WITH_HES_RMS = (*WITH_HES_RMS, "empirical Gaussian", "learned kernels")
PAIRS = [(start, network) for start in STARTS for network in NETWORKS if network not in UNSUITED.get(start, ())]
OLD = ("PyTorch default", "Xavier", KAIMING, "white noise, dwp's RMS", "dwp", "dwp, prior's scale", "dwp, orthogonal")
OLD = (*OLD, "white noise, prior's scale", "learned kernels, He's RMS", "learned kernels, own scale")


def test_every_name_of_the_recorded_tables_is_there() -> None:
    assert set(OLD) < set(start_names()) and len(set(start_names())) == len(start_names())
    assert find_start("white noise, dwp's RMS") is find_start("white noise") is STARTS["white noise"]
    assert find_start("learned kernels, He's RMS") is STARTS["learned kernels"] and find_start("He") is None


def test_labels_and_colours_tell_starts_apart() -> None:
    for column in ("name", "label", "colour"):
        assert len({getattr(start, column) for start in STARTS.values()}) == len(STARTS)


@pytest.mark.parametrize(("start", "network"), PAIRS)
def test_only_spatial_kernels_differ_and_by_the_seed(start: str, network: str, make: Make) -> None:
    if start in (*BY_LSUV, *WHOLE):
        pytest.importorskip("lsuv" if start in BY_LSUV else "anyinit")
        if network == "vae":
            pytest.skip("a VAE has no forward pass of images alone")
    own, kaiming, made, again = (make(network, each) for each in (OWN, KAIMING, start, start))
    other = make(network, start, seed=1)
    spatial = {f"{name}.weight": layer for name, layer in spatial_convolutions(made).items()}
    biases = {name.replace("weight", "bias") for name in spatial if start == OTHER_DRAWS}
    changed_weights = 0
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        changed = not torch.equal(value, own.state_dict()[name])
        if name not in spatial:
            assert changed == (name in biases) or start in WHOLE
            continue
        assert changed or start in KEEPING
        if spatial[name].kernel_size[0] == 2 and start not in KEEPING and start in BY_KERNELS:
            assert start in BY_LSUV or torch.equal(value, kaiming.state_dict()[name])  # no prior is of 2×2 kernels
        else:
            changed_weights += (value != own.state_dict()[name]).sum().item()
    total = sum(layer.weight.numel() for layer in spatial.values())
    assert made.drawn == pytest.approx(changed_weights / total, abs=1e-6)
    different = [not torch.equal(made.state_dict()[name], other.state_dict()[name]) for name in spatial]
    assert all(different) or start in (*KEEPING, "trained network")


@pytest.mark.parametrize(("start", "network"), [pair for pair in PAIRS if pair[0] in WITH_HES_RMS])
def test_the_root_mean_square_is_hes(start: str, network: str, make: Make) -> None:
    for layer in spatial_convolutions(make(network, start)).values():
        if layer.kernel_size[0] > 2:
            assert layer.weight.square().mean().sqrt().item() == pytest.approx(he_rms(layer), rel=1e-4)


@pytest.mark.parametrize(("start", "network"), [(start, name) for start, names in UNSUITED.items() for name in names])
def test_starts_refuse_networks_on_which_they_do_nothing_of_their_own(start: str, network: str, make: Make) -> None:
    with pytest.raises(ValueError, match=f"'{start}' .* network has .*leave (it|them|this start) out"):
        make(network, start)


@pytest.mark.parametrize("start", ["dwp", "Xavier", "learned kernels"])
def test_layers_narrow_the_choice(start: str, make: Make) -> None:
    plain, network = make("vae", OWN), make("vae", start, layers=("encoder.*",))
    for name, layer in spatial_convolutions(network).items():
        assert torch.equal(layer.weight, spatial_convolutions(plain)[name].weight) == name.startswith("decoder")


def test_starts_never_share_draws(make: Make) -> None:
    noise, kaiming = (make("cifar", start).features.conv2.weight.flatten() for start in ("white noise", KAIMING))
    assert abs(nn.functional.cosine_similarity(noise, kaiming, dim=0).item()) < 0.1


@pytest.mark.parametrize("network", ["odd", "timm:resnet10t"])
@pytest.mark.parametrize("start", STARTS)
def test_layers_of_any_structure_are_filled_or_left(
    start: str, network: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if start in (*BY_LSUV, *WHOLE) or network != "odd":
        pytest.importorskip("timm" if network != "odd" else "lsuv" if start in BY_LSUV else "anyinit")
    monkeypatch.setitem(NETWORKS, "timm:resnet10t", lambda: build("timm:resnet10t", (), 5, (3, 32, 32)))
    monkeypatch.setitem(NETWORKS, "odd", odd_network)
    if start == "trained network" or (network != "odd" and "resnet" in UNSUITED.get(start, ())):
        with pytest.raises(ValueError, match=f"'{start}' .* network has .*leave (it|them|this start) out"):
            make(network, start)
        return
    made = make(network, start)
    assert 0 <= made.drawn <= 1 and (made.drawn > 0) == (start != OWN)
    assert all(layer.weight.isfinite().all() and layer.weight.any() for layer in spatial_convolutions(made).values())


def odd_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=2, dilation=2),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=4, padding=1),
        nn.Conv2d(8, 16, 3, groups=8, stride=2, padding=1),
        nn.Conv2d(16, 16, 5, groups=16, padding=4, dilation=2),
        nn.Conv2d(16, 16, 7, groups=16, padding=3),
        nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
        nn.ConvTranspose2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 6, 3, groups=2),
        nn.Conv2d(6, 6, (1, 7)),
        nn.Conv2d(6, 4, (3, 5)),
        nn.Conv2d(4, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A start that a test enters."""
    monkeypatch.setattr(base, "STARTS", dict(STARTS))
    law = each(lambda layer, generator: nn.init.dirac_(torch.empty(layer.weight.shape)))
    yield add_start(Start("mirror", "mirror", "#000000", (), law, aliases=("identity",)))


def test_a_start_is_one_record(mirror: Start) -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    x = torch.rand(2, 3, 8, 8)
    for name in ("mirror", "identity"):
        initialize_(nn.Sequential(layer), name, 0)
        assert torch.equal(layer(x), x) and name in start_names()
    with pytest.raises(ValueError, match="there is a start of this name already: identity"):
        add_start(Start("identity", "", "", (), mirror.fill))


def test_kinds() -> None:
    kinds = [kind_of(nn.Conv2d(*shape)) for shape in ((4, 4, 3, 1, 0, 1, 4), (4, 8, 3, 1, 0, 1, 4), (4, 8, 3))]
    assert kinds == ["depthwise", "depthwise", "dense"] and kind_of(nn.Conv2d(1, 4, 3)) == "dense"


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (
            "He",
            {},
            "each name must be one of a start, given once; got He; there are own; PyTorch default; own, other draws; ",
        ),
        ("dwp", {"priors": ()}, "dwp cannot be drawn from nothing: name priors=, or leave them out"),
        ("white noise, prior's scale", {"priors": ()}, "white noise, prior's scale cannot be drawn .*: name priors="),
        ("empirical Gaussian", {"learned": None}, "Gaussian cannot be drawn .*: name kernels stages in needs="),
        ("learned kernels, He's RMS", {"learned": {}}, "learned kernels, He's RMS cannot be drawn from nothing"),
        ("LSUV", {"batch": None}, "LSUV cannot be drawn from nothing: give images in batch="),
        ("own, other draws", {"again": None}, "own, other draws cannot .*: give a function that builds .* in again="),
        ("master filters", {"folder": None}, "master filters cannot .*: name the folder of its files in folder="),
        ("dwp", {"strict": True}, r"'dwp' has nothing to draw from for stem.* \(dense 2×2\): add to priors or needs"),
        ("Xavier", {"layers": ("conv",)}, r"larger than 1×1 matches \('conv',\); it has stem"),
    ],
)
def test_helpful_errors(start: str, options: dict[str, object], message: str, make: Make) -> None:
    with pytest.raises(ValueError, match=message):
        make("convmixer", start, **options)


@pytest.mark.parametrize("start", [start for start in STARTS if start not in BY_MORE])
def test_a_network_without_spatial_convolutions_is_refused(start: str, priors: list, learned: dict) -> None:
    with pytest.raises(ValueError, match=r"with kernels larger than 1×1 matches \('\*',\); it has none"):
        initialize_(nn.Conv2d(2, 2, 1), start, 0, priors=priors, learned=learned)


@pytest.mark.parametrize("chosen", [(), ("Xavier", "Xavier"), ("white noise", "white noise, dwp's RMS")])
def test_a_choice_names_each_law_once(chosen: tuple[str, ...], images: Tensor) -> None:
    with pytest.raises(ValueError, match=f"given once; got {'; '.join(chosen) or 'none'}"):
        check_starts(chosen, priors=True, learned=True)
