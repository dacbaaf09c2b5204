"""The argument ``prior`` of `apply_`: which priors it gives for which layers."""

from typing import Any

import pytest
from torch import nn

from dwp_init import apply_
from tests.models import Fit, Snapshot, network

BAD = [
    (TypeError, 3, "a prior is a name, a folder, a Prior, several of those, or a mapping .*; got 3"),
    (TypeError, [3], "a prior's name or folder must be a str or a Path; got int"),
    (TypeError, {"*": None}, "a prior is a name, .*; got None"),
    (TypeError, {3: "x"}, "prior maps patterns of layer names, each a str, to priors; got the key 3"),
    (ValueError, [], r"prior gives no prior for the layers '\*'; name one, such as 'notmnist-7x7'"),
    (ValueError, {}, r"prior is empty \({}\); name at least one, such as 'notmnist-7x7'"),
    (ValueError, "nosuch", "no prior and no folder is called 'nosuch'"),
]


@pytest.mark.parametrize(("kind", "prior", "message"), BAD)
def test_helpful_errors(kind: type[Exception], prior: Any, message: str, snapshot: Snapshot) -> None:
    model = network()
    before = snapshot(model)
    with pytest.raises(kind, match=message):
        apply_(model, prior)
    assert snapshot(model) == before


def test_priors_that_clash_or_match_nothing_are_errors(gaussian: Fit) -> None:
    three, five = gaussian(3), gaussian(5)
    with pytest.raises(
        ValueError, match="'Gaussian' and 'Gaussian' are both for 3×3 kernels; keep one, or give a mapping"
    ):
        apply_(network(), [three, three])
    with pytest.raises(
        ValueError, match=r"pattern 'head.\*' of prior= matches no convolution; there are 0.0, 1.0, 1.2, 2$"
    ):
        apply_(network(), {"*": three, "head.*": five})
    with pytest.raises(ValueError, match=r"prior gives no prior for the layers '0.*'; name one"):
        apply_(network(), {"0.*": [], "1.*": three})


def test_a_prior_for_all_layers_before_one_for_depthwise_ones_of_its_size_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'tinyimagenet-3x3' takes the 3×3 kernels of all layers, so that 'natural-dw3x3'"
    ):
        apply_(network(), ["tinyimagenet-3x3", "natural-dw3x3"])


def test_a_prior_of_stems_is_for_any_layer_that_is_named() -> None:
    """A second encoder of other images is no stem by itself."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 5))
    for pattern, drawn in (("1", ["1"]), ("*1", [])):
        report = apply_(model, {"0": "natural", pattern: "natural-stem"}, seed=0)
        assert report.initialized == ["0", *drawn]
    assert report.notes[0].startswith("the filters of natural-stem in 0 are meant for")
