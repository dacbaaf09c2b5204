"""The cost of ``natural``, with a clock that is known."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from training.engine.stage import Context
from training.experiments import natural_costs
from training.experiments.natural_costs import NaturalCosts, first_call
from training.starts.base import spatial_convolutions


def test_times_become_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kaiming takes 1, 2 and 4 seconds and ``natural`` 3, 4 and 20: ratios 3, 2 and 5; all in this process."""
    clock = itertools.cycle([1.0, 3.0, 2.0, 4.0, 4.0, 20.0])

    def seconds(function: Callable[[], object]) -> float:
        function()
        return next(clock)

    def here(measure: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
        return measure(*arguments)

    monkeypatch.setattr(natural_costs, "cpu_seconds", seconds)
    monkeypatch.setattr(natural_costs, "in_fresh_process", here)
    monkeypatch.setattr(natural_costs, "first_call", lambda starts: {"processes": starts})
    stage = NaturalCosts(models=("squeezenet1_1",), channels=(4,), repeats=3, starts=2)
    done = stage.run(tmp_path, Context(out=tmp_path))
    network, layer = done["rows"]
    assert (layer["network"], layer["layers"], layer["weights"]) == ("3x3, 4 channels", 1, 144)
    assert (layer["ratio_median"], layer["ratio_min"], layer["ratio_max"]) == (3.0, 2.0, 5.0)
    assert layer["kaiming_ns_per_weight"] == round(2e9 / 144, 2)
    convolutions = spatial_convolutions(natural_costs._build("squeezenet1_1")).values()
    assert network["weights"] == sum(each.weight.numel() for each in convolutions) and network["layers"] == 9
    assert network["limit_mb"] == pytest.approx(100 + 3 * network["largest_layer_mb"], abs=0.2)
    assert {path.name for path in (tmp_path / "record").iterdir()} == {
        "apply_cost_natural.csv",
        "apply_cost_natural.png",
        "apply_cost_first_call.csv",
    }


def test_networks_of_timm() -> None:
    pytest.importorskip("timm")
    assert isinstance(natural_costs._build("timm:resnet18"), nn.Module)


def test_the_first_call_is_a_fresh_one() -> None:
    row = first_call(1)
    assert row["modules"] > 20 and row["import_ms"] > 0
    assert row["first_call_more_ms"] == pytest.approx(row["first_call_ms"] - row["later_call_ms"], abs=0.11)
