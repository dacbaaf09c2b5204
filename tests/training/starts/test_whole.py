import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.starts.whole import ANYINIT_NORMAL, ANYINIT_SINUSOIDAL

Make = Callable[..., nn.Module]


@pytest.mark.parametrize("start", [ANYINIT_NORMAL, ANYINIT_SINUSOIDAL])
def test_the_package_initialises_all_layers_by_the_seed(start: str, make: Make) -> None:
    anyinit = pytest.importorskip("anyinit")
    own, made, expected = make("mobilenet", "own", 4), make("mobilenet", start, 4), make("mobilenet", "own", 4)
    anyinit.initialize(expected, distribution=start.split(", ")[1], seed=4)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), expected.parameters(), strict=True))
    assert made.drawn == 1 and not torch.equal(made.classifier.weight, own.classifier.weight)
    with pytest.raises(ValueError, match=r"whole networks, but layers= asks for 1 of the 4 .*; leave layers= away"):
        make("mobilenet", start, layers=("stem.*",))


def test_without_its_package_it_says_how_to_get_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyinit", None)
    with pytest.raises(ImportError, match=r"pip install 'anyinit>=0.4', or leave it out"):
        make("cifar", ANYINIT_NORMAL)


def test_a_package_that_changes_nothing_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyinit", SimpleNamespace(initialize=lambda network, **options: None))
    with pytest.raises(ValueError, match=r"changed none of the 3 spatial convolutions .*; leave it out"):
        make("cifar", ANYINIT_NORMAL)
