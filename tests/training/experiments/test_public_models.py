import math

import pytest
import torch
from torch import Tensor, nn

from dwp_init import apply_
from training.experiments.public_models import (
    RULES,
    Activations,
    PublicModels,
    ratio,
    scale_of,
    summary_table,
)
from training.networks import public as networks
from training.networks.public import PublicModel, build_public, pink_images


def _row(**found: float) -> dict:
    return {"drawn": 1} | {f"{rule}_{key}": found.get(rule, 1.0) for rule in RULES for key in ("output", "greatest")}


def test_the_scale_is_that_of_all_outputs_and_of_the_strongest_convolution() -> None:
    first, second = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    for layer, value in ((first, 6.0), (second, 0.5)):
        nn.init.constant_(layer.weight, value)
    network = nn.Sequential(first, second)
    public = PublicModel(network, lambda images: {"a": [network(images)], "b": torch.zeros(1, 1, 2, 2)}, 2)
    assert scale_of(public, torch.ones(1, 1, 2, 2)) == (pytest.approx(3 / math.sqrt(2)), pytest.approx(6))
    assert scale_of(public, torch.full((1, 1, 2, 2), math.nan)) == Activations(math.inf, math.inf)


def test_each_start_is_what_apply_draws() -> None:
    row = PublicModels(models=("edsr:1",), size=24).measure("edsr:1", lambda *_: None)[0]
    assert row["drawn"] == 1 and row["spatial"] == 6 and row["weight_share"] < 0.01
    images = pink_images(2, 24, 0)
    own = scale_of(build_public("edsr:1", 0, 24), images)
    for scale in ("auto", "keep", "fan_in"):
        public = build_public("edsr:1", 0, 24)
        apply_(public.network, "natural", scale=scale, seed=0)
        found = scale_of(public, images)
        assert row[f"{scale}_output"] == pytest.approx(found.output / own.output, rel=1e-3)
        assert row[f"{scale}_greatest"] == pytest.approx(found.greatest / own.greatest, rel=1e-3)


def test_the_default_raises_an_untouched_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(name: str) -> nn.Module:
        return nn.Sequential(*(part for width in (3, 8, 8, 8) for part in (nn.Conv2d(width, 8, 3), nn.ReLU())))

    monkeypatch.setattr(networks, "_network", network)
    row = PublicModels(models=("any",), size=16).measure("any", lambda *_: None)[0]
    assert min(row["auto_output"], row["fan_in_output"]) > 3 > 2 > row["keep_output"]


def test_zeros_are_kept_but_by_hes_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(name: str) -> nn.Module:
        made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, bias=False))
        nn.init.zeros_(made[1].weight)
        return made

    monkeypatch.setattr(networks, "_network", network)
    row = PublicModels(models=("any",), size=16).measure("any", lambda *_: None)[0]
    assert row["own_output"] == 0 and row["drawn"] == 1
    assert row["keep_output"] == row["fan_in_output"] == 1 and row["kaiming_output"] == row["he_rms_output"] == math.inf


def test_a_model_without_a_layer_to_draw_is_as_its_authors_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_network", lambda name: nn.Conv2d(3, 4, 1))
    row = PublicModels(models=("any",), size=8).measure("any", lambda *_: None)[0]
    assert row["drawn"] == 0 and {row[f"{rule}_output"] for rule in RULES} == {1.0}


def test_errors_name_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("too small")

    monkeypatch.setattr(networks, "_network", lambda name: Fails(3, 4, 3))
    with pytest.raises(RuntimeError, match="edsr:7: too small"):
        PublicModels(models=("edsr:7",), size=8).measure("edsr:7", lambda *_: None)


def test_the_summary_counts_models_with_a_drawn_layer() -> None:
    rows = [_row(keep=2.9), _row(keep=0.3, he_rms=math.inf), _row(kaiming=9.0), {**_row(), "drawn": 0}]
    table = {row["start"]: row for row in summary_table(rows)}
    assert table["natural, keep"]["within_a_factor_of_3"] == 2 and table["natural, keep"]["share"] == 0.6667
    assert table["dwp, orthogonal"]["not_finite"] == 2 and table["dwp, orthogonal"]["greatest_factor"] == math.inf
    assert table["Kaiming"]["greatest_factor"] == pytest.approx(9)
    assert {row["with_a_drawn_layer"] for row in table.values()} == {3} and table["Kaiming"]["models"] == 4


def test_a_ratio_to_zero_is_one_only_for_zero() -> None:
    assert ratio(0.0, 0.0) == 1 and ratio(1.0, 0.0) == math.inf and ratio(3.0, 2.0) == 1.5
