"""Why a plan is refused: the cause comes first."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from dwp_init import apply_
from tests.models import Fit, network


def pruned() -> nn.Module:
    return prune.identity(nn.Conv2d(1, 1, 3), "weight")


LAZY = "lazy: run a forward pass first, so that its shape is known"
PRUNED = "its weight is not a parameter, as under prune: call apply_ before the weight is replaced"
SEVEN = "'notmnist-7x7' is for 7×7 kernels"
NATURAL = "'natural' is for up to 16×16 stem, 3×3, 5×5, 7×7 dense, 7×7 depthwise kernels"
POINT = nn.Conv2d(8, 8, 1)
NOTHING = [
    ([nn.Linear(2, 2)], "natural", {}, "the model has no convolution"),
    (
        [nn.Conv2d(3, 8, 17)],
        "natural",
        {},
        f"{NATURAL}; the model has 17×17 stem (1 layer); resize=True would take tiny",
    ),
    (
        [network()],
        "notmnist-7x7",
        {},
        f"{SEVEN}; the model has 3×3 (2 layers), 5×5 (1 layer), 1×1 (1 layer); resize=True",
    ),
    ([network()], "notmnist-7x7", {"layers": "1.*"}, f"{SEVEN}; the layers asked for have 3×3 (2 layers); resize=True"),
    (
        [network()],
        {"1.*": "notmnist-7x7"},
        {},
        "'notmnist-7x7' in '1.*' is for 7×7 kernels; the model has 3×3 (2 layers); re",
    ),
    ([POINT], "notmnist-7x7", {}, f"{SEVEN}; the model has 1×1 (1 layer); list_priors() names the"),
    (
        [pruned(), pruned(), nn.LazyConv2d(1, 3), nn.Conv2d(4, 4, 9), POINT],
        "natural",
        {},
        f"{PRUNED} (0, 1); {LAZY} (2); no prior given fits 9×9 dense (1 layer)",
    ),
    (
        [nn.LazyConv2d(1, 3), nn.Conv2d(1, 1, 9), nn.Conv2d(1, 1, 9)],
        "notmnist-7x7",
        {},
        f"{SEVEN}; the model has 9×9 (2 l",
    ),
]


@pytest.mark.parametrize(("layers", "prior", "options", "message"), NOTHING)
def test_no_layer_at_all_names_the_cause_first(
    layers: list[nn.Module], prior: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('no layer can be initialised: ' + message)}") as error:
        apply_(nn.Sequential(*layers) if len(layers) > 1 else layers[0], prior, **options)
    assert len(str(error.value)) <= (250 if "lazy" in message else 200)


def test_strict_names_layers_by_size_and_by_reason(gaussian: Fit) -> None:
    wide = [nn.Conv2d(1, 1, size) for size in (5, 7, 7)]
    frozen = [pruned(), nn.LazyConv2d(1, 3), nn.Conv2d(1, 1, 3, dtype=torch.complex64)]
    left = f"no prior given fits 7×7 (2, 3), 5×5 (1); {PRUNED} (4); {LAZY} (5); 1 more layer for other reasons; add"
    with pytest.raises(
        ValueError, match=re.escape(f"strict: {left} a prior, resize=True, narrow layers=, or leave strict off")
    ):
        apply_(nn.Sequential(nn.Conv2d(1, 1, 3), *wide, *frozen), gaussian(3), strict=True)


def test_a_layer_that_a_prior_of_the_package_would_draw_is_the_one_to_speak_of() -> None:
    with pytest.raises(ValueError, match=r"the model has .*; prior=\[…, 'audio'\] would draw them; list_priors"):
        apply_(nn.Sequential(nn.Conv1d(1, 4, 80), nn.Conv1d(4, 4, 3)), "natural")
