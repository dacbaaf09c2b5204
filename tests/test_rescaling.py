"""Layers of plain chains without normalisation that no prior fits: a set that keeps kernels gives them He's scale."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dwp_init import PriorSet, apply_
from tests.models import Fit, Snapshot, changed, responses

LEFT = ("2", "4", "6", "8", "10")  # no prior of `natural` has their kernels


def chain(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 24, 5, padding=2),
        nn.Conv2d(24, 32, 1),
        nn.Conv2d(32, 32, 9, padding=4),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 32, (1, 9), padding=(0, 4)),
        nn.Conv2d(32, 48, 1, stride=2, groups=2),
    )
    parts = ((layer, *[nn.BatchNorm2d(layer.out_channels)] * norm, nn.ReLU()) for layer in layers)
    return nn.Sequential(*(part for each in parts for part in each), nn.Conv2d(48, 10, 1))


def he(layer: nn.Module) -> float:
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return math.sqrt(2 / layer.weight[0].numel())


def test_every_layer_takes_hes_response_with_its_own_kernels(snapshot: Snapshot) -> None:
    model = chain()
    before = {name: model.get_submodule(name).weight.detach().clone() for name in (*LEFT, "12")}
    report = apply_(model, "natural", seed=0)
    assert [row.prior for row in report.drawn] == ["natural-stem", *["own weights"] * 5]
    assert {name: responses(model)[name] for name in LEFT} == pytest.approx(
        {name: he(model.get_submodule(name)) for name in LEFT}, rel=1e-4
    )
    for name in LEFT:
        ratio = model.get_submodule(name).weight.detach() / before[name]
        assert torch.allclose(ratio, ratio.mean(), rtol=1e-5)
        assert ratio.mean().item() == pytest.approx(math.sqrt(6), rel=0.2)
    assert torch.equal(model.get_submodule("12").weight, before["12"])  # no rectifier follows
    assert report.skipped == {"12": "no prior given fits 1×1 dense kernels here"}
    assert report.notes[0].startswith("6 of 6 layers had PyTorch's default scale")
    after = snapshot(model)
    again = apply_(model, "natural", seed=0)
    assert again.initialized == report.initialized
    assert changed(model, after, snapshot) <= {"0.weight"}


def test_activations_stay_as_large_as_the_images() -> None:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    spreads: list[float] = []
    for times in range(2):
        model = chain()[:-1]
        for _ in range(times):
            apply_(model, "natural", seed=0)
        with torch.no_grad():
            spreads.append(model(images).square().mean().sqrt().item())
    assert spreads[0] < 0.2 < 0.5 < spreads[1] < 2


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv3d])
def test_of_other_dimensions_too(layer: type[nn.Conv1d] | type[nn.Conv3d]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer(2, 16, 3), nn.ReLU(), layer(16, 16, 5, stride=2), nn.ReLU())
    assert apply_(model, "natural").initialized == ["0", "2"]
    assert responses(model) == pytest.approx({"0": he(model[0]), "2": he(model[2])}, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "natural-stem"},
        {"prior": "natural-v1"},
        {"scale": "keep"},
        {"layers": ["0", *LEFT]},
        {"prior": {"0": "natural", "2": "natural-dw7x7", "*": "natural-v1"}},
    ],
)
def test_not_where_draws_are_asked_for_or_no_set_keeps_kernels(options: Mapping[str, Any], snapshot: Snapshot) -> None:
    model = chain()
    before = snapshot(model)
    report = apply_(model, **{"prior": "natural", **options})
    expected = {"0.weight", "6.weight"} if "natural-v1" in str(options) else {"0.weight"}
    assert changed(model, before, snapshot) == expected
    assert "2" in report.skipped


def test_not_behind_normalisations(snapshot: Snapshot) -> None:
    model = chain(norm=True)
    before = snapshot(model)
    apply_(model, "natural")
    assert changed(model, before, snapshot) == {"0.weight"}


def test_a_few_weights_may_be_of_any_law(snapshot: Snapshot) -> None:
    torch.manual_seed(0)
    grey = nn.Conv2d(3, 1, 1, bias=False)
    grey.weight.data.copy_(torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1))  # in the range of the default
    model = nn.Sequential(grey, nn.ReLU(), nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    before = snapshot(model)
    apply_(model, "natural")
    assert changed(model, before, snapshot) == {"2.weight", "4.weight"}


def test_a_set_of_which_no_prior_fits_counts_as_unused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 48, 9, stride=2), nn.ReLU())
    report = apply_(model, "natural", dry_run=True)
    assert report.initialized == ["0", "2"] and report.unused == ["natural"]
    with pytest.raises(ValueError, match="natural"):
        apply_(model, "natural", strict=True)


def test_of_stems_that_are_kept_no_note_says_what_their_prior_is_for() -> None:
    prior = PriorSet(stem=("natural-stem",), dense=("tinyimagenet-3x3",), kept=("stem",), name="mine")
    assert [note[:18] for note in apply_(chain(), prior).notes] == ["6 of 6 layers had "]


def _scaled(weight: Tensor) -> None:
    weight.data.mul_(2)


def _frozen(weight: Tensor) -> None:
    weight.requires_grad_(False)


def _infinite(weight: Tensor) -> None:
    weight.data[-1, -1, -1, -1] = math.inf


@pytest.mark.parametrize("change", [_scaled, _frozen, _infinite, nn.init.zeros_, nn.init.dirac_])
@pytest.mark.parametrize("name", ["2", "4"])
def test_what_an_author_set_stays(change: Callable[[Tensor], object], name: str, snapshot: Snapshot) -> None:
    model = chain()
    change(model.get_submodule(name).weight)
    before = snapshot(model)
    report = apply_(model, "natural")
    others = {f"{each}.weight" for each in LEFT if each != name}
    assert changed(model, before, snapshot) == {"0.weight", *others}
    assert report.skipped[name].startswith("no prior given fits")


def test_a_weight_that_two_layers_have_changes_once(snapshot: Snapshot) -> None:
    torch.manual_seed(0)
    shared = nn.Conv2d(16, 16, 1)
    both = (nn.Conv2d(3, 16, 3), nn.ReLU(), shared, nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
    model = nn.Sequential(*both)
    model[4].weight = shared.weight
    report = apply_(model, "natural")
    assert report.initialized == ["0", "2"]
    assert report.skipped == {"4": "shares the weight of 2"}
    assert responses(model)["2"] == pytest.approx(he(shared), rel=1e-4)
    model = nn.Sequential(*both, nn.Conv2d(16, 16, 1))  # and nothing rectifies the other one
    shared.reset_parameters()
    model[6].weight = shared.weight
    before = snapshot(model)
    apply_(model, "natural")
    assert changed(model, before, snapshot) <= {"0.weight", "4.weight"}


def test_under_weight_norm_it_is_the_same() -> None:
    model = chain()
    parametrizations.weight_norm(model.get_submodule("4"))
    apply_(model, "natural")
    assert responses(model)["4"] == pytest.approx(he(model.get_submodule("4")), rel=1e-4)


def test_what_no_prior_fits_is_no_layer_that_scale_keep_draws(gaussian: Fit) -> None:
    prior = PriorSet(dense=(gaussian(3),), kept=("dense",), name="mine")
    with pytest.raises(ValueError, match=r"or give scale='keep', which draws 1 layer that stays here$"):
        apply_(nn.Sequential(*chain(), nn.Conv2d(10, 10, 3), nn.ReLU()), prior, orthogonal=True)
