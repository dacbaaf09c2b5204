from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dwp_init import PriorSet, apply_
from dwp_init.convolutions import find_layers
from dwp_init.rules import PriorLike
from tests.chains import EVERYWHERE
from training.networks.registry import build
from training.starts.base import initialize_, kind_of, spatial_convolutions
from training.starts.natural import (
    DENSE_DRAWN,
    NATURAL,
    NATURAL_FAN_IN,
    NATURAL_KEEP,
    NATURAL_NOISE,
    NATURAL_RESIZED,
    NATURAL_V1,
    NOISE_RESPONSE,
    V1_FAN_IN,
    V1_KEEP,
    V1_MEANS,
    V1_RESIZED,
)

Make = Callable[..., nn.Module]
APPLIED: dict[str, dict[str, Any]] = {
    NATURAL: {},
    DENSE_DRAWN: {},
    NATURAL_KEEP: {"scale": "keep"},
    NATURAL_FAN_IN: {"scale": "fan_in"},
    NATURAL_RESIZED: {"resize": True},
}
FIRST_EDITION: dict[str, dict[str, Any]] = {
    NATURAL_V1: {},
    V1_KEEP: {"scale": "keep"},
    V1_FAN_IN: {"scale": "fan_in"},
    V1_RESIZED: {"resize": True},
}


@pytest.fixture
def prior_set(priors: list) -> PriorSet:
    return PriorSet(dense=tuple(priors), depthwise=tuple(priors), orthogonal=True)


@pytest.mark.parametrize("network", ["convmixer", "cifar"])
@pytest.mark.parametrize("start", APPLIED | FIRST_EDITION)
def test_starts_are_what_apply_draws(start: str, network: str, make: Make, prior_set: PriorSet) -> None:
    if network == "cifar" and "resized" in start:
        pytest.skip("it has a prior of each size")
    expected = make(network, "own", seed=3)
    prior = "natural-v1" if start in FIRST_EDITION else prior_set
    report = apply_(expected, prior, seed=3, **(APPLIED | FIRST_EDITION)[start])
    found = make(network, start, seed=3, priors=[prior_set])
    assert found.drawn == pytest.approx(report.coverage.weight_share)
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)


def test_by_default_a_plain_chain_takes_hes_response_and_another_network_its_own(make: Make) -> None:
    for network, same in (("cifar", NATURAL_FAN_IN), ("mobilenet", NATURAL_KEEP)):
        for a, b in zip(make(network, DENSE_DRAWN).parameters(), make(network, same).parameters(), strict=True):
            assert torch.equal(a, b)


def test_with_dense_layers_drawn_only_these_differ(make: Make) -> None:
    for network, kinds in (("cifar", {"dense"}), ("mobilenet", set()), ("resnet", {"dense"})):
        own, every = (
            spatial_convolutions(make(network, start, priors=["natural"])) for start in (NATURAL, DENSE_DRAWN)
        )
        differ = [name for name, layer in own.items() if not torch.equal(layer.weight, every[name].weight)]
        assert {kind_of(own[name]) for name in differ} == kinds


@pytest.mark.parametrize("network", ["convmixer", "mobilenet"])  # without and with dense layers that a prior fits
def test_means_of_depthwise_kernels_are_removed_or_kept(network: str, make: Make) -> None:
    removed, kept = (make(network, start) for start in (NATURAL_V1, V1_MEANS))
    independent = make(network, "own")
    apply_(independent, "natural-v1", seed=0, orthogonal=False)
    assert kept.drawn == removed.drawn > 0
    for name, layer in spatial_convolutions(removed).items():
        weight = kept.get_submodule(name).weight
        if kind_of(layer) == "dense":
            assert torch.equal(weight, layer.weight)
        else:
            assert torch.equal(weight, independent.get_submodule(name).weight)
            assert layer.weight.mean((2, 3)).abs().max() < 1e-5 < 1e-3 < weight.mean((2, 3)).abs().max()


def test_noise_has_the_response_of_natural_layer_by_layer_and_no_neighbours_alike(make: Make) -> None:
    for network in ("cifar", "mobilenet"):
        drawn, noise = (make(network, start) for start in (NATURAL_V1, NOISE_RESPONSE))
        assert noise.drawn == drawn.drawn == 1
        for ours, theirs in zip(*(find_layers(made, lambda named: True) for made in (noise, drawn)), strict=True):
            if ours.is_spatial:
                found, expected = (layer.measure(layer.weight.read()) for layer in (ours, theirs))
                assert found.response == pytest.approx(expected.response, rel=1e-5)
                weight = ours.weight.read()
                neighbours = F.cosine_similarity(weight[..., 1:].flatten(), weight[..., :-1].flatten(), dim=0)
                assert abs(neighbours.item()) < 4 / weight[..., 1:].numel() ** 0.5


@pytest.mark.parametrize("start", [*APPLIED, *FIRST_EDITION, NOISE_RESPONSE])
def test_what_an_author_set_up_stays(start: str, priors: list) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 2))
    nn.init.zeros_(network[1].weight)
    before = [layer.weight.detach().clone() for layer in network]
    drawn = initialize_(network, start, 0, priors=priors)
    numbers = [108, 144, 64]
    expected = (numbers[0] + (numbers[2] if "resized" in start else 0)) / sum(numbers)
    assert drawn == pytest.approx(expected) and torch.equal(network[1].weight, before[1])
    assert torch.equal(network[2].weight, before[2]) == ("resized" not in start)


@pytest.mark.parametrize(
    ("network", "filters", "prior"),
    [("vgg(norm=1)", (8, 16, 16), EVERYWHERE), ("convmixer(patch=4)", (8,), "natural")],
)
def test_noise_behind_the_stem_leaves_stem_and_copies(network: str, filters: tuple[int, ...], prior: PriorLike) -> None:
    own, drawn, noise = (build(network, filters, 10, (3, 32, 32)) for _ in range(3))
    for model in (drawn, noise):
        model.load_state_dict(own.state_dict())
    shares = [
        initialize_(model, start, 0, priors=[prior]) for model, start in ((drawn, NATURAL), (noise, NATURAL_NOISE))
    ]
    assert shares[0] == shares[1] > 0
    replaced = 0
    for before, ours, theirs in zip(
        *(find_layers(each, lambda named: True) for each in (own, noise, drawn)), strict=True
    ):
        a, b = ours.weight.read(), theirs.weight.read()
        if ours.first or not ours.is_spatial or torch.equal(b, before.weight.read()):
            assert torch.equal(a, b)
            continue
        same = (a == b).flatten(1).all(1)
        assert torch.equal(same, b.flatten(1).count_nonzero(1) == 1)
        assert ours.measure(a).response == pytest.approx(theirs.measure(b).response, rel=1e-5)
        replaced += int((~same).sum())
    assert replaced >= 8


@pytest.mark.parametrize(
    ("network", "filters"), [("mobilenet", (8, 8, 8)), ("vgg", (8, 16, 16))]
)  # the stem alone, and copies next to own weights
def test_noise_behind_the_stem_is_refused_where_it_is_natural_itself(network: str, filters: tuple[int, ...]) -> None:
    made = build(network, filters, 10, (3, 32, 32))
    before = [value.clone() for value in made.parameters()]
    with pytest.raises(ValueError, match=r"differs from 'natural' in draws behind the stem.* none besides the 1"):
        initialize_(made, NATURAL_NOISE, 0, priors=["natural"])
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), before, strict=True))
