import html
import math

import pytest
import torch
from matplotlib.axes import Axes

from training.experiments.benchmark import Benchmark
from training.experiments.paired import half_width
from training.publish import charts, results
from training.publish.details import Metrics


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The points with error bars that a chart draws: value and error."""
    found: list[tuple[float, float]] = []
    draw = Axes.errorbar
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda axes, x, y, xerr, **style: (found.append((x, xerr)), draw(axes, x, y, xerr=xerr, **style)),
    )
    return found


def test_a_prior_of_record_is_compared_with_all_families_of_its_table() -> None:
    found = charts.densities_of("notmnist-5x5", Metrics())
    rows = results.densities("5x5")
    assert {each.name: (each.log_prob, each.error) for each in found} == {
        name: (float(row["log_prob"]), float(row["standard_error"])) for name, row in rows.items()
    }
    assert [each.name for each in found if each.ours] == ["notmnist-5x5"]


def test_any_other_is_compared_with_what_its_metrics_say() -> None:
    found = charts.densities_of("mine", Metrics(log_prob=2.0, gaussian_log_prob=1.0, log_prob_at_depth=3.0))
    assert [(each.name, each.log_prob, each.ours) for each in found] == [
        ("this prior, depth known", 3.0, True),
        ("this prior", 2.0, True),
        ("Gaussian", 1.0, False),
    ]
    assert charts.densities_of("mine", Metrics()) == []


def test_the_best_density_is_above_and_has_its_standard_error(bars: list[tuple[float, float]]) -> None:
    text = charts.density_chart(
        [charts.KnownDensity("a", 3.0, 0.5, True), charts.KnownDensity("b", 1.0, math.nan, False)], "densities"
    )
    assert bars == [(1.0, 0.0), (3.0, 0.5)]  # the last is drawn highest
    assert charts.ACCENT in text and charts.FAINTER in text


def test_a_curve_has_the_interval_of_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    bands = []
    fill = Axes.fill_between
    monkeypatch.setattr(
        Axes, "fill_between", lambda axes, x, low, high, **s: (bands.append((low, high)), fill(axes, x, low, high, **s))
    )
    values = torch.tensor([[10.0, 30.0], [14.0, 30.0], [12.0, 33.0]])
    assert "<svg" in charts.curve_chart({"natural": values}, (5, 10), "task", "a curve")
    ((low, high),) = bands
    for place in range(2):
        assert high[place] - low[place] == pytest.approx(2 * half_width(values[:, place]))
        assert (high[place] + low[place]) / 2 == pytest.approx(values[:, place].mean().item())


def test_charts_of_a_start_are_those_of_its_rows_of_record(bars: list[tuple[float, float]]) -> None:
    from training.publish.benchmark_page import read_tasks

    task = next(each for each in read_tasks() if each.stage.name == "bench_frozen_3x3")
    assert isinstance(task.stage, Benchmark)
    text = charts.over_own_chart([task], "Kaiming", "over own")
    row = next(row for row in task.task.table if row["start"] == "Kaiming")
    assert bars == [(float(row["over_own"]), float(row["over_own_95"]))] and ">frozen 3x3</text>" in text
    (curve,) = charts.task_curves([task], "Kaiming")
    assert curve.label.startswith("frozen 3x3: test accuracy over steps from Kaiming and")
    assert f'aria-label="{html.escape(curve.label)}"' in curve.svg
