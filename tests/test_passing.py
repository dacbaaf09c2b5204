"""Layers of plain chains that keep their own kernels: their scale changes, and their first channels pass inputs on."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from dwp_init import PriorSet, apply_
from dwp_init.bayes import layer_priors
from dwp_init.passing import CopiesInARow
from dwp_init.response import strength
from tests.chains import EVERYWHERE
from tests.models import Fit, Snapshot, changed, responses

WIDTHS = ((3, 8), (8, 12), (12, 12), (12, 30))
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def chain(norm: bool, stride: int = 1, groups: int = 1, inputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for given, returned in ((inputs, 8), *WIDTHS[1:]):
        shared = groups if given % groups == returned % groups == 0 else 1
        parts += [nn.Conv2d(given, returned, 3, stride if parts else 1, 1, groups=shared)]
        parts += [*[nn.BatchNorm2d(returned)] * norm, nn.ReLU()]
    return nn.Sequential(*parts, nn.MaxPool2d(2))


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach().clone() for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def response(filters: torch.Tensor) -> float:
    axis = 0.9 ** (torch.arange(3)[:, None] - torch.arange(3)).abs().double()
    return strength(filters, (axis, axis), 0.4).response


@pytest.mark.parametrize("dtype", DTYPES)
def test_behind_batch_norm_other_channels_do_not_change_at_all(dtype: torch.dtype) -> None:
    model = chain(norm=True).to(dtype)
    before = weights(model)
    report = apply_(model, "natural", seed=0)
    texts = ["natural-stem", "own weights, 8 of 12 channels identity", "identity"]
    assert [row.prior for row in report.drawn] == [*texts, "own weights, 12 of 30 channels identity"]
    for place, inputs in ((1, 8), (3, 12)):
        found = weights(model)[place]
        assert torch.equal(found[inputs:], before[place][inputs:])
        copies = found[:inputs]
        assert torch.equal(copies, copies.max() * nn.init.dirac_(torch.empty_like(copies)))
        assert response(copies) == pytest.approx(response(before[place]), rel=torch.finfo(dtype).eps + 1e-6)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_second_call_changes_no_bit_behind_the_stem(
    norm: bool, stride: int, dtype: torch.dtype, snapshot: Snapshot
) -> None:
    for model in (chain(norm, stride).to(dtype), chain(norm, stride, groups=2).to(dtype)):
        reports = [apply_(model, "natural", seed=0)]
        before = snapshot(model)
        reports.append(apply_(model, "natural", seed=1))
        assert changed(model, before, snapshot) == {"0.weight"}
        texts = [[(row.layer, row.prior) for row in report.drawn] for report in reports]
        assert texts[0] == texts[1] and len(texts[0]) == (1 if norm and stride == 2 else 4)


def test_without_a_norm_other_channels_take_hes_response() -> None:
    model = chain(norm=False)
    before = weights(model)
    apply_(model, "natural", seed=0)
    for place, inputs in ((1, 8), (3, 12)):
        found = weights(model)[place]
        assert torch.equal(found[:inputs], nn.init.dirac_(torch.empty_like(found[:inputs])))
        he = (2 / before[place][0].numel()) ** 0.5
        torch.testing.assert_close(found[inputs:], before[place][inputs:] * he / response(before[place]))


def test_layers_that_lose_pixels_only_take_hes_response_and_stay_behind_a_norm() -> None:
    model = chain(norm=False, stride=2, inputs=13)  # no prior is for its stem
    before = weights(model)
    for _ in range(2):
        report = apply_(model, "natural")
        assert [row.prior for row in report.drawn] == ["own weights"] * 4
    for old, new in zip(before, weights(model), strict=True):
        torch.testing.assert_close(new / old, (new / old).mean().expand_as(new))
    assert responses(model) == pytest.approx(
        {str(2 * place): (2 / old[0].numel()) ** 0.5 for place, old in enumerate(before)}, rel=1e-5
    )
    skipped = apply_(chain(norm=True, stride=2), "natural").skipped
    assert all(skipped[name].startswith("'natural' leaves dense layers as they are") for name in ("3", "6", "9"))


@pytest.mark.parametrize("fill", [nn.init.kaiming_normal_, nn.init.xavier_uniform_, lambda weight: weight.data.mul_(3)])
def test_a_scale_that_an_author_chose_stays(fill: Callable[[torch.Tensor], object]) -> None:
    model = chain(norm=False)
    for layer in model[::2][:4]:
        fill(layer.weight)
    before = weights(model)
    assert apply_(model, "natural").initialized == ["0"]
    assert all(torch.equal(old, new) for old, new in zip(before[1:], weights(model)[1:], strict=True))


def test_what_draws_them_all_the_same() -> None:
    drawn, copied = "tinyimagenet-3x3", ["8 of 12 channels identity", "identity", "12 of 30 channels identity"]
    with_copies = [f"{drawn}, {copied[0]}", copied[1], f"{drawn}, {copied[2]}"]
    for prior, options, expected in (
        ("natural", {"scale": "keep"}, [drawn] * 3),
        ("natural", {"scale": "fan_in"}, [drawn] * 3),
        ("natural", {"layers": ["0", "2", "4", "6"]}, with_copies),
        (EVERYWHERE, {}, with_copies),
    ):
        rows = apply_(chain(norm=False), prior, **options).drawn
        assert [row.prior for row in rows] == ["natural-stem", *expected]
    besides = apply_(chain(norm=True), ["natural", "tinyimagenet-3x3"]).drawn
    assert [row.prior for row in besides] == ["natural-stem", *["tinyimagenet-3x3"] * 3]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_stay(norm: bool, value: float) -> None:
    """Also behind the first 2¹⁶ numbers, which show the law of the others."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *[nn.BatchNorm2d(8)] * norm, nn.ReLU(), nn.Conv2d(8, 1200, 3))
    model.extend([*[nn.BatchNorm2d(1200)] * norm, nn.ReLU(), nn.MaxPool2d(2)])
    nn.init.constant_(model[2 + norm].weight[1100, 0, 0, :1], value)
    before = weights(model)
    report = apply_(model, "natural")
    assert report.initialized == ["0"]
    assert torch.equal(before[1].nan_to_num(), weights(model)[1].nan_to_num())


@pytest.mark.parametrize("norm", [True, False])
def test_under_weight_norm_they_are_the_same(norm: bool, snapshot: Snapshot) -> None:
    models = [chain(norm), chain(norm)]
    for layer in models[1]:
        if isinstance(layer, nn.Conv2d):
            parametrizations.weight_norm(layer)
    for model in models:
        apply_(model, "natural", seed=0)
    for one, other in zip(weights(models[0]), weights(models[1]), strict=True):
        torch.testing.assert_close(other, one)
    before = snapshot(models[1])
    apply_(models[1], "natural", seed=1)
    assert all(name.startswith("0.") for name in changed(models[1], before, snapshot))


def test_weights_of_eight_bits() -> None:
    for norm in (True, False):
        model = chain(norm)
        place = 2 + norm
        model[place].weight = nn.Parameter(model[place].weight.detach().to(torch.float8_e4m3fn))
        report = apply_(model, "natural", dry_run=True)
        assert report.initialized == apply_(model, "natural").initialized
        assert model[place].weight.dtype == torch.float8_e4m3fn


def test_copies_of_an_author_stay_and_so_do_the_channels_beside_them() -> None:
    model = chain(norm=False)
    with torch.no_grad():
        nn.init.dirac_(model[2].weight.mul_(0.01)[:8])
    before = weights(model)
    report = apply_(model, "natural")
    assert report.drawn[1].prior == "own weights, 8 of 12 channels identity"
    assert torch.equal(weights(model)[1], before[1])


@pytest.mark.parametrize("fill", [nn.init.orthogonal_, nn.init.xavier_uniform_, nn.init.kaiming_normal_])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_copies_behind_a_norm_never_look_like_those_of_an_author(
    fill: Callable[[torch.Tensor], object], size: int, snapshot: Snapshot
) -> None:
    """In few bits the number may round to 1, which ``dirac_`` writes."""
    for seed in range(3):
        torch.manual_seed(seed)
        pairs = ((3, 24), *[(24, 24)] * 4, (24, 48), (48, 48))
        parts = ((nn.Conv2d(*pair, size, padding=size // 2), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in pairs)
        model = nn.Sequential(*(part for each in parts for part in each), nn.MaxPool2d(2))
        for layer in model[::3]:
            if isinstance(layer, nn.Conv2d):
                fill(layer.weight)
        for dtype in (torch.float32, torch.bfloat16):
            made = copy.deepcopy(model).to(dtype)
            first = apply_(made, "natural", seed=0)
            before = snapshot(made)
            assert apply_(made, "natural", seed=0).initialized == first.initialized
            assert changed(made, before, snapshot) <= {"0.weight"}
            assert all((layer.weight.amax() != 1) for layer in made if isinstance(layer, nn.Conv2d))


def test_options_of_draws_have_no_effect_where_nothing_is_drawn(gaussian: Fit) -> None:
    prior = PriorSet(dense=(gaussian(3),), kept=("dense",), dirac=True, name="mine")
    with pytest.raises(ValueError, match=r"noise=False has no effect: nothing is drawn; remove it$"):
        apply_(chain(norm=False), prior, noise=False)
    model = chain(norm=False)
    for left in ("4 layers that stay", "1 layer that stays"):  # the first layer copies nothing
        way_out = f"remove it, or give scale='keep', which draws {left} here$"
        with pytest.raises(ValueError, match=f"orthogonal=True has no effect: nothing is drawn; {way_out}"):
            apply_(model, prior, orthogonal=True)
        assert len(apply_(model, prior).drawn) == 4
    with pytest.raises(ValueError, match="has no noise step that could be left out"):
        apply_(chain(norm=False), "natural", noise=False)


def test_of_many_in_a_row_every_fourth_keeps_its_kernels() -> None:
    torch.manual_seed(0)
    parts = ((nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for width in (3, *[8] * 6))
    model = nn.Sequential(*(part for each in parts for part in each), nn.MaxPool2d(2))
    before = weights(model)
    for _ in range(2):
        report = apply_(model, "natural", seed=0)
        assert [row.layer for row in report.drawn] == ["0", "3", "6", "9", "15", "18"]
        assert torch.equal(weights(model)[4], before[4])
        assert report.skipped["12"].startswith("'natural' leaves dense layers as they are on purpose")


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("first", [2, 3])
def test_a_weight_that_another_layer_uses_otherwise_stays(norm: bool, first: int) -> None:
    """One of the two has a stride, or a function behind it that is no rectifier: copies, or another scale, harm it."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 32, 3)]
    parts[2].weight = parts[1].weight
    if norm:
        parts[first - 1].stride = (2, 2)
    behind = [nn.Tanh() if not norm and place == first - 1 else nn.ReLU() for place in range(4)]
    norms = [[nn.BatchNorm2d(part.out_channels)] * norm for part in parts]
    model = nn.Sequential(
        *(each for three in zip(parts, norms, behind, strict=True) for each in (three[0], *three[1], three[2]))
    )
    before = parts[1].weight.detach().clone()
    apply_(model.append(nn.MaxPool2d(2)), "natural")
    assert torch.equal(parts[1].weight, before)


def equal_widths() -> nn.Sequential:
    torch.manual_seed(0)
    pairs = ((3, 16), *[(16, 16)] * 4, (16, 32))
    parts = ((nn.Conv2d(*pair, 3, padding=1), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in pairs)
    return nn.Sequential(*(part for each in parts for part in each), nn.MaxPool2d(2))


def test_only_layers_that_copy_count_in_a_row() -> None:
    model = equal_widths()
    for name in ("12", "9"):
        model[int(name)] = nn.Conv2d(16, 16, 5, padding=2)
    rows = apply_(model, ["natural", "tinyimagenet-3x3"], dry_run=True).drawn
    assert [row.prior for row in rows[1:]] == [*["tinyimagenet-3x3"] * 2, *["identity"] * 2, "tinyimagenet-3x3"]
    nn.init.constant_(model[3].weight[:1], torch.nan)
    assert "3" in apply_(model, "natural", dry_run=True).skipped
    assert [row.layer for row in apply_(model, "natural", dry_run=True).drawn] == ["0", "6", "9", "12", "15"]


def test_copies_that_calls_in_parts_have_made_are_known() -> None:
    model = equal_widths()
    apply_(model, "natural", layers="1[0-9]")
    for _ in range(2):
        rows = apply_(model, "natural", seed=0).drawn
        assert [row.prior for row in rows[1:5]] == ["identity"] * 4
    assert list(layer_priors(model, "natural")) == ["0"]


def test_a_row_ends_at_a_layer_that_does_not_pass_all_on() -> None:
    row = CopiesInARow()
    asked = [(True, True)] * 3 + [(True, False)] + [(True, True)] * 4 + [(False, True)] + [(True, True)]
    assert [row.allows(*each) for each in asked] == [True] * 7 + [False, False, True]
