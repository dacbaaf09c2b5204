import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from training.engine.records import RESULTS, Row, write_table
from training.experiments import converge, vae_converge
from training.experiments.few_labels_table import average_splits
from training.experiments.frozen_readout import readout_table
from training.experiments.paired import (
    by_mark,
    comparison,
    curves,
    first_crossing,
    half_width,
    half_width_from,
    half_widths,
    holm,
    leads_over,
    mean_sd,
    number_ahead,
    p_value,
    paired_leads,
    seeds_needed,
)
from training.experiments.random_features import features_table
from training.experiments.steps_to import steps_tables
from training.recipes import fig4a, fig4b, fig4c

MARKS = (10, 20, 40)
ROWS = [  # in no order
    {"init": "dwp", "seed": 7, "accuracy": [71.0, 50.0]},
    {"init": "Kaiming", "seed": 6, "accuracy": [60.0, 50.0]},
    {"init": "dwp", "seed": 6, "accuracy": [61.0, 50.0]},
    {"init": "Kaiming", "seed": 7, "accuracy": [70.0, 50.0]},
]


def test_runs_become_curves() -> None:
    runs = by_mark(ROWS, "accuracy", (1, 3))
    assert runs[:2] == [
        {"init": "dwp", "seed": 7, "step": 1, "accuracy": 71.0},
        {"init": "dwp", "seed": 7, "step": 3, "accuracy": 50.0},
    ]
    found = curves(runs, "accuracy")
    assert list(found) == ["dwp", "Kaiming"] and found["dwp"].tolist() == [[61.0, 50.0], [71.0, 50.0]]
    with pytest.raises(ValueError, match="duplicate entries"):
        curves(runs + runs[:1], "accuracy")


def test_differences_are_paired_by_seed() -> None:
    runs = by_mark(ROWS, "accuracy", (1, 3))
    table = comparison(runs, "accuracy", {"kaiming": "Kaiming", "learned": "learned kernels"})
    assert table[0] == {
        "init": "dwp",
        "step": 1,
        "accuracy": 66.0,
        "sd": round(50**0.5, 3),
        "over_kaiming": 1.0,
        "over_kaiming_sd": 0.0,
        "ahead_of_kaiming": 2,
        "seeds": 2,
    }
    assert table[1]["ahead_of_kaiming"] == table[2]["over_kaiming"] == 0
    alone = comparison([row for row in runs if row["seed"] == 6], "accuracy", {"k": "dwp"}, ahead=False)
    assert all(row["sd"] == row["over_k_sd"] == "" and "ahead_of_k" not in row for row in alone)


def test_means_are_empty_where_a_value_is_missing() -> None:
    assert mean_sd("steps", torch.tensor([1.0, math.nan])) == {"steps": "", "steps_sd": ""}
    assert mean_sd("gap", torch.tensor([1.0, 4.0]).double(), 0) == {"gap": 2.0, "gap_sd": 2.0}
    assert number_ahead(torch.tensor([1.0, 0.0, -1.0, 0.1])) == 2


def test_intervals_by_students_t() -> None:
    known = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 7: 2.3646, 8: 2.3060, 30: 2.0423}
    for degrees, quantile in known.items():
        differences = torch.arange(degrees + 1.0)
        expected = quantile * differences.std().item() / math.sqrt(degrees + 1)
        assert half_width(differences) == pytest.approx(expected, rel=1e-4)
    assert half_width(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(4.3027 * math.sqrt(7 / 3), rel=1e-4)
    assert half_width(torch.arange(11.0), level=0.99) == pytest.approx(3.1693, rel=1e-4)  # s = √11
    assert math.isnan(half_width(torch.tensor([2.0])))


def test_intervals_of_many_comparisons_at_once() -> None:
    both = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    assert half_widths(both).tolist() == [half_width(each) for each in both]


def test_p_values_of_the_paired_t_test() -> None:
    assert p_value(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)  # t = 2 √3, 2 degrees of freedom
    assert p_value(torch.tensor([1.0, -1.0])) == 1.0
    same = torch.tensor([41.23 - 41.13, 40.23 - 40.13, 3.3 - 3.2]).double()  # up to rounding
    assert [p_value(x) for x in (torch.zeros(3), torch.ones(1), torch.ones(3), same)] == [1.0, 1.0, 0.0, 0.0]


def test_seeds_needed_are_those_at_which_the_interval_leaves_out_0() -> None:
    found = torch.tensor([-1.0, 3.0])  # mean 1, s = √8; t of 32 degrees is 2.037 > √(33 / 8), of 33 2.034 < √(34 / 8)
    assert seeds_needed(found) == 34 and seeds_needed(-found) == 34
    assert seeds_needed(found, level=0.5) == 5  # t of 3 degrees is 0.765 > √(4 / 8), of 4 degrees 0.741 < √(5 / 8)
    assert seeds_needed(torch.tensor([2.0, 2.0])) == 2
    unknown = ([1.0], [1.0, -1.0], [0.3 - 0.2, 0.1 - 0.2], [1.0, math.inf], [1.0, math.nan])
    assert [seeds_needed(torch.tensor(each).double()) for each in unknown] == [None] * 5


@pytest.mark.parametrize(
    ("values", "level", "expected"),
    [
        ((10.0, 20.0, 40.0), 30.0, 30.0),
        ((10.0, 20.0, 40.0), 20.0, 20.0),
        ((10.0, 20.0, 40.0), 5.0, 10.0),  # an upper bound
        ((10.0, 30.0, 20.0), 25.0, 17.5),  # the first crossing, though the curve falls again
        ((10.0, 20.0, 40.0), 41.0, math.nan),
        ((-300.0, -200.0, -100.0), -150.0, 30.0),
        ((-math.inf, -100.0, -50.0), -150.0, 20.0),
    ],
)
def test_first_crossing(values: tuple[float, ...], level: float, expected: float) -> None:
    assert first_crossing(MARKS, values, level) == pytest.approx(expected, nan_ok=True)


def averages(runs: list[Row]) -> list[Row]:
    return comparison(runs, "accuracy", converge.BASELINES)


def read(name: str) -> list[Row]:
    return pd.read_csv(RESULTS / f"{name}.csv").to_dict("records")


def same(name: str, table: list[Row], folder: Path) -> bool:
    """Whether a table, written as CSV, has the bytes of the recorded one."""
    write_table(folder / "table.csv", table)
    return (folder / "table.csv").read_bytes() == (RESULTS / f"{name}.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "average"),
    [
        *((name, averages) for name in ("choose_family", "converge_mnist", "fig4b_curves", "fig4c_curves")),
        ("fig3a", lambda runs: features_table(runs, "mnist")),
        ("fig3b", lambda runs: features_table(runs, "cifar10")),
        ("vae_converge", lambda runs: comparison(runs, "elbo", vae_converge.ELBO_BASELINES, ahead=False)),
        ("fig2a_mnist", average_splits),
        ("fig2a_mnist_cold", average_splits),
    ],
)
def test_averages_over_seeds(name: str, average: Callable[[list[Row]], list[Row]], tmp_path: Path) -> None:
    assert same(name, average(read(f"{name}_runs")), tmp_path)


def test_averages_of_readouts(tmp_path: Path) -> None:
    runs = pd.read_csv(RESULTS / "frozen_mnist_small_runs.csv", keep_default_na=False).to_dict("records")
    assert same("frozen_mnist_small", readout_table(runs), tmp_path)


@pytest.mark.parametrize(
    ("name", "curves", "measure", "levels"),
    [
        ("fig4a", "vae_converge", "elbo", fig4a.ELBOS),
        ("fig4b", "fig4b_curves", "accuracy", fig4b.MNIST_LEVELS),
        ("fig4c", "fig4c_curves", "accuracy", fig4c.CIFAR_LEVELS),
    ],
)
def test_steps(name: str, curves: str, measure: str, levels: tuple[float, ...], tmp_path: Path) -> None:
    """The steps of single runs in Fig. 4(b) were recorded from a float32 interpolation, which rounds ties otherwise."""
    table, steps = steps_tables(read(f"{curves}_runs"), measure, levels, name)
    assert same(name, table, tmp_path)
    if name != "fig4b":
        assert same(f"{name}_runs", steps, tmp_path)
    for found, recorded in zip(steps, read(f"{name}_runs"), strict=True):
        key = ("init", "seed", "level")
        assert [found[name] for name in key] == [recorded[name] for name in key]
        assert float(found["steps"] or "nan") == pytest.approx(recorded["steps"], abs=0.11, nan_ok=True)


def test_holms_method_multiplies_the_smallest_p_values_most() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_leads_are_tested_as_one_family() -> None:
    """A difference of 1 with sd 1 on four pairs has t = 2 and an interval of ± 3.1824 / 2."""
    one = torch.tensor([0.0, 2.0, 1.0, 1.0]) * 1.5**0.5 + 1 - 1.5**0.5
    known = paired_leads({"a": one, "b": -10 * one, "gap": torch.tensor([1.0, math.nan]), "single": one[:1]})
    assert list(known) == ["a", "b"] and known["b"].mean == pytest.approx(-10) and known["b"].n == 4
    assert known["a"].half_width == pytest.approx(half_width_from(1.0, 4)) == pytest.approx(1.5912, rel=1e-4)
    assert known["a"].p == known["b"].p == pytest.approx(2 * 0.1393, rel=1e-3) and not known["a"].differs
    runs = by_mark(ROWS, "accuracy", (1, 3))
    found = leads_over(runs, "accuracy", "Kaiming")
    assert list(found) == [("dwp", 1), ("dwp", 3)]
    texts = leads_over([row | {"step": f"{9 if row['step'] == 1 else 10}"} for row in runs], "accuracy", "Kaiming")
    assert texts == {("dwp", "9"): found["dwp", 1], ("dwp", "10"): found["dwp", 3]}
    assert found["dwp", 1][:2] == (1.0, 0.0) and found["dwp", 1].differs and not found["dwp", 3].differs


def test_that_is_all_records_with_runs() -> None:
    """The first benchmark's records are left out, because the code that averaged them is gone."""
    names = {path.stem.removesuffix("_runs") for path in RESULTS.glob("*_runs.csv")}
    names = {name for name in names if not name.startswith(("benchmark_", "scale_default_"))}
    tested = {"choose_family", "converge_mnist", "vae_converge", "fig2a_mnist", "fig2a_mnist_cold"}
    tested |= {"frozen_mnist_small"}
    assert names == tested | {"fig3a", "fig3b", "fig4a", "fig4b", "fig4b_curves", "fig4c", "fig4c_curves"}


def test_leads_need_all_marks() -> None:
    rows = [
        {"init": init, "seed": seed, "step": step, "a": 1.0}
        for init, step in (("K", 1), ("K", 2), ("A", 1))
        for seed in (0, 1)
    ]
    with pytest.raises(ValueError, match=r"all initialisations must have all marks; \('A', 2\) is missing"):
        leads_over(rows, "a", "K")
