import math
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.networks.registry import build
from training.starts.base import initialize_
from training.starts.controls import OWN
from training.starts.natural import DENSE_DRAWN, NATURAL
from training.starts.whole import ANYINIT_NORMAL, ANYINIT_SINUSOIDAL, KAIMING_TOO

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


def test_kaimings_law_everywhere_and_what_else_changes_1x1_layers() -> None:
    made: dict[str, list[torch.Tensor]] = {}
    for start in (OWN, KAIMING_TOO, NATURAL, DENSE_DRAWN):
        torch.manual_seed(0)
        network = build("nin", (48, 64), 5, (3, 16, 16))
        assert initialize_(network, start, 0, priors=("natural",)) == float(start != OWN)
        made[start] = [layer.weight.detach() for layer in network.body if isinstance(layer, nn.Conv2d)]
    pointwise = [place for place, weight in enumerate(made[OWN]) if weight[0, 0].numel() == 1]
    assert pointwise == [1, 2, 4, 5, 6]  # no ReLU follows the last
    for place in pointwise:
        own, everywhere, natural, drawn = (weights[place] for weights in made.values())
        he = math.sqrt(2 / own.shape[1])
        assert everywhere.square().mean().sqrt().item() == pytest.approx(he, rel=0.1)
        assert torch.allclose(natural, own if place == 6 else own * (natural[0, 0] / own[0, 0]), rtol=1e-5)
        assert natural.square().mean().sqrt().item() == pytest.approx(he / math.sqrt(6) if place == 6 else he, rel=0.2)
        assert torch.equal(drawn, own)  # a set that keeps no kernels leaves what no prior fits


def test_without_its_package_it_says_how_to_get_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyinit", None)
    with pytest.raises(ImportError, match=r"pip install 'anyinit>=0.4', or leave it out"):
        make("cifar", ANYINIT_NORMAL)


def test_a_package_that_changes_nothing_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyinit", SimpleNamespace(initialize=lambda network, **options: None))
    with pytest.raises(ValueError, match=r"changed none of the 3 spatial convolutions .*; leave it out"):
        make("cifar", ANYINIT_NORMAL)
