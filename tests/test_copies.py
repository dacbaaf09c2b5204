"""Layers that stay, and had the values of one that is drawn, are named in a note."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dwp_init import apply_
from dwp_init.bayes import BayesConv2d, bayesianize_
from tests.models import Fit


def pair(change: Callable[[nn.Module], object]) -> nn.ModuleDict:
    """A network and a copy of it, such as a momentum encoder or a target network."""
    torch.manual_seed(0)
    query = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16), nn.ReLU(), nn.Conv2d(16, 16, 3))
    key = copy.deepcopy(query)
    change(key)
    return nn.ModuleDict({"key": key, "query": query})


def notes(model: nn.Module, gaussian: Fit) -> list[str]:
    return [note for note in apply_(model, gaussian(3)).notes if "the values of layers that are drawn" in note]


@pytest.mark.parametrize(
    "change", [lambda key: key.requires_grad_(False), lambda key: key.bfloat16().requires_grad_(False)]
)
def test_copies_that_stay_are_named(change: Callable[[nn.Module], object], gaussian: Fit) -> None:
    model = pair(change)
    before = copy.deepcopy(model["key"].state_dict())
    (note,) = notes(model, gaussian)
    assert note.startswith("key.0, key.3 had the values of layers that are drawn, and stay as they are")
    assert all(torch.equal(before[name], value) for name, value in model["key"].state_dict().items())
    assert notes(model, gaussian) == []  # they are no copies any more


def test_what_is_drawn_or_only_looks_alike_is_not_named(gaussian: Fit) -> None:
    assert notes(pair(lambda key: None), gaussian) == []
    model = pair(lambda key: key.requires_grad_(False))
    with torch.no_grad():
        for place in (0, 3):
            model["key"][place].weight[-1, -1, -1, -1] += 1
    assert notes(model, gaussian) == []
    shared = nn.ModuleList([layer := nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)])
    shared[1].weight = layer.weight
    assert notes(shared, gaussian) == []


def test_cloned_blocks_are_drawn_and_converted_each(gaussian: Fit) -> None:
    block = nn.Conv2d(8, 8, 3)
    blocks = nn.ModuleList([copy.deepcopy(block) for _ in range(4)])
    assert apply_(blocks, {"0": gaussian(3), "*": gaussian(3)}, strict=True).initialized == list("0123")
    assert len({layer.weight.sum().item() for layer in blocks}) == 4
    blocks = nn.ModuleList([copy.deepcopy(block) for _ in range(4)])
    bayesianize_(blocks, prior=gaussian(3))
    assert all(isinstance(layer, BayesConv2d) for layer in blocks)
