from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dwp_init.sets import SETS
from training.networks.registry import build
from training.recipes.benchmark import CHOOSING
from training.starts.base import STARTS, initialize_, spatial_convolutions
from training.starts.source import source_of

DRAWN: dict[str, tuple[int | float, ...]] = {
    "own": (1, -4.2048, -2.4626),
    "own, other draws": (1, 0.34388, 0.6329),
    "Kaiming": (1, -1.4997, -0.31708),
    "Kaiming, 1×1 too": (1, 5.2148),
    "Kaiming fan-out": (1, -0.76878, -0.39463),
    "Xavier": (1, 2.2144, 0.24541),
    "orthogonal": (1, -5.2623, -3.3694),
    "delta-orthogonal": (1, -3.0319, -2.2743),
    "dirac": (1, -0.9569, 2.5902),
    "LSUV": (1, -40.23, -1.3576),
    "natural": (3, -3.9836, 3.8657),
    "natural, dense drawn": (3, -3.9836, 4.3501),
    "natural, noise behind the stem": (1, 1.2539),
    "natural-v1": (1, 4.4766, -1.3781),
    "natural-v1, keep": (1, 4.4766, -0.61456),
    "natural-v1, fan_in": (1, 11.617, -1.3781),
    "natural-v1, means kept": (1, 2.1243, 1.4272),
    "white noise, response": (1, 2.304, -0.51735),
    "Gaussian by depth": (1, -4.7351, 0.84019),
    "whitened stem": (1, -6.907, -1.4259),
    "whitened stem, dirac": (1, -2.9854, 2.068),
    "whitened stem, natural": (1, 3.2795, 2.1712),
    "anyinit, normal": (1, -3.8913, 4.5073),
    "anyinit, sinusoidal": (1, -5.5092, -0.045746),
}


def signature(network: nn.Module) -> float:
    """A sum over all spatial weights, each with a factor of its own."""
    weights = torch.cat([layer.weight.detach().flatten() for layer in spatial_convolutions(network).values()]).double()
    return float(weights @ torch.arange(len(weights)).double().cos())


def in_order(network: nn.Module) -> nn.Module:
    """Orders each pair ± of a whitened stem's filters: the sign of an eigenvector is open, and differs by processor."""
    stem = next(iter(spatial_convolutions(network).values()))
    pairs = stem.weight.detach()[: 2 * (len(stem.weight) // 2)].unflatten(0, (-1, 2))
    turned = pairs[:, 0].flatten(1) @ torch.arange(1, 1 + pairs[0, 0].numel()).cos() < 0
    pairs[turned] = pairs[turned].flip(1)
    return network


@pytest.mark.parametrize("start", DRAWN)
def test_what_a_start_draws_is_that_of_its_edition(start: str, make: Callable[..., nn.Module]) -> None:
    pytest.importorskip({"LSUV": "lsuv", "anyinit": "anyinit"}.get(start.split(",")[0], "torch"))
    edition, *expected = DRAWN[start]
    networks = [
        "convmixer" if start in ("whitened stem, natural", "natural, noise behind the stem") else "mobilenet",
        "cifar" if start != "natural-v1, means kept" else "convmixer",
    ]
    made = [make(network, start, 3, priors=("natural",)) for network in networks[: len(expected)]]
    found = [signature(in_order(network) if start.startswith("whitened") else network) for network in made]
    assert STARTS[start].edition == edition
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), "let the edition of this start grow, and enter these"


@pytest.mark.parametrize(
    ("network", "filters", "expected"),
    [
        ("convmixer(patch=4)", (8,), 0.44192),  # a stem of patches, and 7×7 depthwise layers
        ("convmixer(kernel=5)", (8,), 2.892),
        ("resnet", (8, 16), 10.649),  # dense layers with batch norm, which stay, as they are in no plain chain
        ("nin", (16, 16), 17.702),  # whose 1×1 layers take another scale
        ("tutorial", (6, 16), 4.0373),  # whose own forward pass is a plain chain
        ("vgg", (8, 16), -3.3461),  # and without, which pass their inputs on
        ("speed", (32, 32), -4.2504),  # and in a plain chain, where those with batch norm do so too
    ],
)
def test_what_natural_draws_in_networks_of_all_kinds(network: str, filters: tuple[int, ...], expected: float) -> None:
    torch.manual_seed(0)
    built = build(network, filters, 10, (3, 32, 32))
    initialize_(built, "natural", 3, priors=("natural",))
    assert signature(built) == pytest.approx(expected, rel=1e-3, abs=1e-4), "let the edition of this start grow"


def test_all_starts_of_the_benchmark_that_need_no_file_are_here() -> None:
    used = {start for fields in CHOOSING.values() for start in fields["starts"]}
    no_file = {start for start in used if not STARTS[start].files}
    assert no_file - {"natural, resized", "natural-v1, resized"} == DRAWN.keys()


def source(start: str, *priors: str, folder: Path | None = None, network: str = "cifar") -> str:
    filters = {"cifar": (4, 4, 4), "convmixer(patch=4)": (4,)}.get(network, (4, 4))
    return source_of(start, priors, folder, lambda: build(network, filters, 10, (3, 32, 32)))


def test_another_edition_is_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, natural = source("Kaiming"), source("natural", "natural")
    for start in ("Kaiming", "natural"):
        monkeypatch.setitem(STARTS, start, replace(STARTS[start], edition=9))
    assert plain == "" != source("Kaiming")
    assert natural != source("natural", "natural") != source("Kaiming")


@pytest.mark.parametrize("start", [start for start in STARTS if not STARTS[start].files])
def test_starts_from_priors_have_the_digest_of_these(start: str) -> None:
    found = source(start, "natural")
    if "priors" in STARTS[start].needs:
        others = [source(start, name) for name in ("tinyimagenet-5x5", "notmnist-5x5")]
        assert len(found) == 12 and int(found, 16)
        assert len({found, *others}) == (1 if STARTS[start].priors else 3)
    else:
        assert found == source(start) == ""


def test_only_what_a_network_takes_from_a_set_is_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = ("cifar", "convmixer(patch=4)", "resnet")  # dense layers, depthwise ones, and dense ones in blocks
    before = [source("natural", "natural", network=network) for network in networks]
    changed = {"depthwise": ("natural-dw5x5",), "dirac": False}
    monkeypatch.setitem(SETS, "natural", replace(SETS["natural"], **changed))
    found = [source("natural", "natural", network=network) for network in networks]
    assert [one == other for one, other in zip(before, found, strict=True)] == [False, False, True]
    assert source("natural, dense drawn", "natural", network="resnet") != found[2]
    assert source("white noise, response", "natural") == source("white noise, response", "notmnist-7x7")


def test_starts_from_files_have_the_digest_of_these(folder: Path) -> None:
    filters, network = (source(start, folder=folder) for start in ("master filters", "trained network"))
    assert len({filters, network, source("natural", "natural", folder=folder)}) == 3
    (folder / "others" / "master_filters.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no master_filters.txt in"):
        source("master filters", folder=folder)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("He", "each name must be one of a start, given once; got He; there are own; "),
        ("natural", "natural cannot be drawn from nothing: name priors="),
        ("master filters", "master filters cannot be drawn from nothing: name the folder of its files in folder="),
    ],
)
def test_helpful_errors(start: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(start)
