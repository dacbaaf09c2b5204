"""Copies of a layer stay copies of it."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations

from dwp_init import apply_
from tests.models import Fit

TAKES = ", and takes its draw, so that copies stay copies; to draw it, give its exact name in layers="


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))


def pair(frozen: bool, first: str = "query") -> nn.ModuleDict:
    """A network and a copy of it, such as a momentum encoder or a target network, registered in either order."""
    torch.manual_seed(0)
    query = encoder()
    key = copy.deepcopy(query).requires_grad_(not frozen)
    modules = {"query": query, "key": key}
    return nn.ModuleDict({name: modules[name] for name in sorted(modules, key=lambda name: name != first)})


def same(model: nn.ModuleDict) -> bool:
    return all(
        torch.equal(*layers) for layers in zip(model["query"].parameters(), model["key"].parameters(), strict=True)
    )


def test_a_copy_takes_the_draw_of_its_original_frozen_or_not() -> None:
    for frozen, first in ((True, "query"), (True, "key"), (False, "query")):
        model = pair(frozen, first)
        before = model["query"][3].weight.clone()
        for _ in range(2):
            report = apply_(model, "natural", seed=0)
            assert report.initialized == ["query.0", "query.3"] and same(model)
            assert report.skipped["key.3"] == f"has the values of query.3{TAKES}"
            assert report.coverage.all_layers == 2
        assert not torch.equal(model["query"][3].weight, before)


def test_a_copy_that_is_named_is_drawn_for_itself(gaussian: Fit) -> None:
    model = pair(frozen=True)
    assert apply_(model, gaussian(3), layers=["*", "key.3"], seed=0).initialized == ["query.0", "query.3", "key.3"]
    assert torch.equal(model["query"][0].weight, model["key"][0].weight) and not same(model)


def test_copies_outside_the_layers_asked_for_stay(gaussian: Fit) -> None:
    model = pair(frozen=False)
    before = copy.deepcopy(model["key"].state_dict())
    apply_(model, gaussian(3), layers="query.*")
    assert all(torch.equal(before[name], value) for name, value in model["key"].state_dict().items())


def test_what_only_looks_alike_is_no_copy(gaussian: Fit) -> None:
    model = pair(frozen=True)
    with torch.no_grad():
        model["key"][3].weight[-1, -1, -1, -1] += 1
    assert apply_(model, gaussian(3)).skipped["key.3"].startswith("its weight is frozen")


def test_a_copy_that_is_made_of_other_tensors_takes_the_draw_too(gaussian: Fit) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3)
    model = nn.ModuleDict({"plain": layer, "normed": parametrizations.weight_norm(copy.deepcopy(layer))})
    with torch.no_grad():
        layer.weight.copy_(model["normed"].weight)  # to the last bit
    assert apply_(model, gaussian(3)).initialized == ["plain"]
    torch.testing.assert_close(model["normed"].weight, layer.weight)
