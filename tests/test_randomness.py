"""Randomness of parametrizations is apart from the global random state, also that of other threads."""

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init import apply_
from dwp_init.randomness import OwnRandomness

RANDOM: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(50, (3,)),
    "randint from": lambda: torch.randint(2, 50, (3,)),
    "randperm": lambda: torch.randperm(9),
    "randn_like": lambda: torch.randn_like(torch.ones(3)),
    "normal": lambda: torch.normal(torch.zeros(3), 1.0),
    "normal_": lambda: torch.empty(3).normal_(),
    "random_": lambda: torch.empty(3).random_(50),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 4),
    "dropout": lambda: F.dropout(torch.ones(9)),
    "orthogonal_": lambda: nn.init.orthogonal_(torch.empty(3, 3)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_the_global_state_is_neither_changed_nor_read(name: str) -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with OwnRandomness():
            found.append(RANDOM[name]())
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*found)


def test_a_generator_that_is_given_is_taken() -> None:
    with OwnRandomness():
        found = torch.randn(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(found, torch.randn(3, generator=torch.Generator().manual_seed(5)))


class Noisy(nn.Module):
    """A parametrization that draws, and meanwhile lets another thread draw."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.meanwhile = [meanwhile]

    def forward(self, x: Tensor) -> Tensor:
        torch.randn(3)
        self.meanwhile[0]()
        return x

    right_inverse = forward


def test_what_another_thread_draws_meanwhile_is_not_taken_back() -> None:
    drawn: list[Tensor] = []

    def draw() -> None:
        thread = threading.Thread(target=lambda: drawn.append(torch.randn(3)))
        thread.start()
        thread.join()

    layer = nn.Conv2d(8, 8, 3)
    parametrize.register_parametrization(layer, "weight", Noisy(draw))
    drawn.clear()
    torch.manual_seed(0)
    expected = [torch.randn(3) for _ in range(20)]
    torch.manual_seed(0)
    apply_(layer, "tinyimagenet-3x3", seed=0)
    assert len(drawn) > 2 and torch.equal(torch.stack(drawn), torch.stack(expected[: len(drawn)]))
