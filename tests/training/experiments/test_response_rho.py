import math

import pytest
import torch
from torch import nn

from dwp_init.convolutions import layer_of
from dwp_init.response import ALIKE, ALIKE_IN_IMAGES, RHO, RHO_DEPTHWISE
from training.experiments.response_rho import MODELS, Model, errors_table, log_growth, log_response, network_of


@pytest.mark.parametrize(
    ("layer", "model", "stem"),
    [
        (nn.Conv2d(8, 4, 3), Model("axes", RHO, ALIKE, 0.0), False),
        (nn.Conv2d(8, 8, 5, groups=8), Model("axes", RHO_DEPTHWISE, ALIKE, 0.0), False),
        (nn.Conv2d(3, 4, 7), Model("axes", RHO, 0.0, ALIKE_IN_IMAGES), True),
    ],
)
def test_one_of_the_models_is_that_of_apply(layer: nn.Conv2d, model: Model, stem: bool) -> None:
    found = layer_of(layer, first=stem)
    assert log_response(layer, model, stem) == pytest.approx(math.log(found.measure(layer.weight).response), abs=1e-5)
    assert {RHO, RHO_DEPTHWISE} < {each.rho for each in MODELS} and (ALIKE, ALIKE_IN_IMAGES) in {m[2:] for m in MODELS}


def test_euclidean_distances_count_diagonal_neighbours_as_nearer() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    distances = [0.0] * 9 + [1.0] * 24 + [2**0.5] * 16 + [2.0] * 12 + [5**0.5] * 16 + [8**0.5] * 4
    expected = math.sqrt(sum(0.5**distance for distance in distances) / 9)
    assert log_response(layer, Model("euclidean", 0.5, 0.0, 0.0), False) == pytest.approx(math.log(expected))


def test_growth_is_from_a_layers_inputs_to_its_outputs() -> None:
    network = network_of("separable 3 4 3", 0)
    kernels = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.groups for layer in kernels] == [1, 4, 1, 4, 1] and not network.training
    nn.init.dirac_(kernels[0].weight)
    with torch.no_grad():
        growth = log_growth(network, torch.rand(2, 3, 8, 8))
    assert len(growth) == 3
    assert growth["0"] == pytest.approx(0.5 * math.log(3 / 4), abs=1e-5)  # one of four channels is 0


def test_errors_are_averaged_by_layer_and_summed_by_network() -> None:
    layers = [
        {"images": "raw", "draws": "natural", "kind": kind, "errors": [value] * len(MODELS)}
        for kind, value in (("dense", 0.3), ("dense", -0.1), ("stem", 0.2))
    ]
    table = errors_table([{"network": "a", "seed": seed, "layers": layers} for seed in (0, 1)])
    rows = {
        row["kind"]: row for row in table if row["rho"] == 0.9 and row["distance"] == "axes" and row["alike"] == 0.4
    }
    assert set(rows) == {"all", "dense", "stem"} and {row["draws"] for row in table} == {"natural"}
    assert rows["dense"]["rms_error"] == pytest.approx(0.2236) and rows["dense"]["bias"] == pytest.approx(0.1)
    assert rows["all"]["network_error"] == pytest.approx(0.4) and rows["all"]["layers"] == 6
