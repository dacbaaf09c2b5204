import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from training.engine.records import Row, read_table, write_table
from training.experiments.benchmark_table import compare_starts, paired_runs, task_table
from training.experiments.paired import holm

MARKS, STEPS = (10, 20, 40), 40
OWN = {0: 40.0, 1: 50.0, 2: 60.0}
TRIALS = ((0.01, 0.1), (0.002, 0.3))


def run(start: str, seed: int, accuracy: float, log_loss: float = 2.0, **other: Any) -> Row:
    row = {"start": start, "seed": seed, "trial": 1, "choosing": False, "accuracy": accuracy, "log_loss": log_loss}
    row |= {"curve": [10.0, 20.0, accuracy], "curve_loss": [2.3, 2.1, log_loss]}
    return row | {"init_s": 0.5, "train_s": 20.0, "drawn": 1.0} | other


def runs(start: str, *over: float, **other: Any) -> list[Row]:
    """Runs whose accuracies differ from those of own by so much, seed by seed."""
    return [run(start, seed, OWN[seed] + points, **other) for seed, points in enumerate(over)]


def table_of(*rows: Row) -> dict[str, Row]:
    table = task_table(rows, marks=MARKS, steps=STEPS, own="own", trials=TRIALS)
    return {row["start"]: row for row in table}


def test_intervals_wins_and_p_values_are_of_paired_differences() -> None:
    table = table_of(*runs("a", 1.0, 2.0, 3.0), *runs("b", 1.0, -1.0, 0.0), *runs("own", 0, 0, 0))
    a, b, own = (table[start] for start in ("a", "b", "own"))
    assert (a["accuracy"], a["accuracy_sd"], a["seeds"]) == (52.0, 11.0, 3)
    assert (a["over_own"], a["over_own_95"]) == (2.0, pytest.approx(4.3027 / math.sqrt(3), abs=1e-3))
    assert (a["wins_own"], a["losses_own"], b["wins_own"], b["losses_own"]) == (3, 0, 1, 1)  # one tie
    alone = 2 * stats.t.sf(2 * math.sqrt(3), 2)
    assert (a["p_own"], b["p_own"]) == (pytest.approx(2 * alone, rel=1e-2), 1.0)  # of two tests
    assert {own[key] for key in own if key.endswith("_own") and key != "loss_over_own"} == {""}
    assert {a[key] for key in a if "kaiming" in key} == {""}  # not run
    assert (a["lr"], a["weight_decay"], a["drawn"], a["diverged"]) == (0.002, 0.3, 1.0, 0)


def test_what_it_takes_is_said_where_the_interval_contains_0() -> None:
    table = table_of(*runs("a", 1.0, 2.0, 3.0), *runs("b", 1.0, 1.0, 1.1), *runs("own", 0, 0, 0))
    assert (table["a"]["seeds_needed_own"], table["b"]["seeds_needed_own"]) == (4, "")  # t of 3 degrees: 3.18 < 2 √4
    assert table_of(*runs("a", 1.0, -1.0), *runs("own", 0, 0))["a"]["seeds_needed_own"] == ""  # never


def test_p_values_of_a_task_are_adjusted_together() -> None:
    over = {"a": (1.0, 2.0, 3.0), "b": (5.0, 5.5, 6.0), "Kaiming": (-0.2, 0.1, 0.3)}
    table = table_of(*runs("own", 0, 0, 0), *(row for start, found in over.items() for row in runs(start, *found)))
    expected = holm([float(stats.ttest_1samp(found, 0).pvalue) for found in over.values()])
    assert [table[start]["p_own"] for start in over] == pytest.approx(expected, rel=1e-2)
    assert table["own"]["over_kaiming"] == pytest.approx(-0.067, abs=1e-3) and table["Kaiming"]["p_kaiming"] == ""
    found = compare_starts(paired_runs([row for s in over for row in runs(s, *over[s])], MARKS), "accuracy", "a", ["b"])
    assert found["b"]["p"] == pytest.approx(stats.ttest_1samp([4.0, 3.5, 3.0], 0).pvalue, rel=1e-2)  # of one test


def test_areas_and_crossings_are_those_of_the_curves() -> None:
    faster = runs("a", -5.0, -5.0, -5.0, curve=[10.0, 60.0, 60.0], init_s=4.5)
    faster[0] |= {"init_s": 100.0, "train_s": 900.0}  # the first run loads packages; medians leave it out
    table = table_of(*runs("own", 0, 0, 0), *faster, *runs("b", -20.0, -20.0, -1.0))
    own, a, b = (table[start] for start in ("own", "a", "b"))
    assert own["target"] == a["target"] == 50.0
    assert own["area"] == pytest.approx((10 * (10 + 20) / 2 + 20 * (20 + 50) / 2) / 30, abs=1e-3)
    assert a["area"] == pytest.approx((10 * 35 + 20 * 60) / 30, abs=1e-3)
    assert a["area_over_own"] == pytest.approx(a["area"] - own["area"], abs=2e-3)
    assert a["area_over_own_95"] == pytest.approx(4.3027 * (10 / 3) / math.sqrt(3), abs=2e-3)  # areas ± 10 · 10 / 30
    assert (own["steps_to_target"], a["steps_to_target"], b["steps_to_target"]) == (40.0, 18.0, "")
    assert (own["seconds_to_target"], a["seconds_to_target"]) == (20.5, 4.5 + 20 * 18 / 40)
    assert (a["steps_ratio"], a["seconds_ratio"]) == (0.45, pytest.approx(13.5 / 20.5, abs=1e-3))
    assert (own["steps_ratio"], b["steps_ratio"], b["seconds_ratio"]) == (1.0, "", "")
    assert {each[end] for each in (own, a, b) for end in ("steps_ratio_low", "steps_ratio_high")} == {""}  # 3 seeds
    assert (own["reached"], a["reached"], b["reached"]) == (2, 3, 1)


def test_seconds_of_a_step_are_those_of_all_starts() -> None:
    """Starts that were run on a day of other load take as long to train."""
    table = table_of(*runs("own", 0, 0, 0), *runs("a", 0, 0, 0, train_s=40.0), *runs("b", 0, 0, 0, train_s=22.0))
    assert {row["seconds_to_target"] for row in table.values()} == {22.5} and table["a"]["seconds_ratio"] == 1.0


def test_the_interval_of_a_ratio_is_over_draws_of_seeds() -> None:
    rows = [run(start, seed, 40.0 + 5 * seed) for seed in range(5) for start in ("own", "b")]
    rows += [run("a", seed, 60.0, curve=[10.0, 60.0, 60.0]) for seed in range(5)]
    rows = [row | {"curve": [10.0, 20.0, 30.0]} if (row["start"], row["seed"]) == ("b", 4) else row for row in rows]
    table = table_of(*rows)
    # with draws of 5 seeds all quantiles but the outermost are inside: 8 in 10,000; targets from 40 to 60
    low, high = table["a"]["steps_ratio_low"], table["a"]["steps_ratio_high"]
    assert 0.4 <= low < table["a"]["steps_ratio"] == 0.45 < high <= 0.5 and high - low > 0.06
    assert (table["b"]["steps_ratio_low"], table["b"]["steps_ratio"], table["b"]["steps_ratio_high"]) == (
        1,
        "",
        math.inf,
    )


def test_unfinished_tasks_compare_the_seeds_that_both_have() -> None:
    rows = [*runs("own", 0, 0, 0), run("a", 1, 53.0), run("a", 2, 61.0), run("b", 0, 45.0)]
    choosing = {key: value for key, value in run("c", 1000, 9.0, choosing=True).items() if "curve" not in key}
    table = table_of(*rows, choosing)
    a, b, c = (table[start] for start in "abc")
    assert (a["over_own"], a["wins_own"], a["seeds"]) == (2.0, 2, 2)
    assert (b["over_own"], b["over_own_95"], b["p_own"], b["accuracy_sd"], b["seeds"]) == (5.0, "", "", "", 1)
    assert (c["accuracy"], c["lr"], c["over_own"], c["wins_own"], c["area"], c["seeds"]) == ("", "", "", "", "", 0)
    assert a["p_own"] == pytest.approx(stats.ttest_1samp([3.0, 1.0], 0).pvalue, rel=1e-2)  # b is not tested yet
    alone = table_of(run("a", 0, 50.0))["a"]
    assert {alone[key] for key in ("over_own", "target", "steps_to_target", "reached", "loss_over_own")} == {""}
    disjoint = table_of(run("own", 0, 50.0), run("a", 1, 50.0))["a"]
    assert (disjoint["over_own"], disjoint["target"]) == ("", 50.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_runs_that_diverged_count_with_their_accuracy_and_leave_the_loss_empty(loss: float) -> None:
    rows = [*runs("own", 0, 0, 0), *runs("a", 1.0, 2.0, log_loss=1.5), run("a", 2, 10.0, loss)]
    table = table_of(*rows, *runs("b", 1.0, 1.5, 2.0, log_loss=1.0))
    a, b = table["a"], table["b"]
    assert (a["accuracy"], a["over_own"], a["losses_own"], a["diverged"]) == (34.333, -15.667, 1, 1)
    assert {a[key] for key in ("log_loss", "loss_over_own", "loss_over_own_95")} == {""}
    assert (b["log_loss"], b["loss_over_own"], b["loss_over_own_95"]) == (1.0, -1.0, 0.0)


def test_tables_are_in_the_order_of_the_registry_and_can_be_recorded(tmp_path: Path) -> None:
    rows = [run(start, seed, 50.0 + seed) for seed in (1, 0) for start in ("unheard of", "Xavier", "own", "Kaiming")]
    table = task_table(rows, marks=MARKS, steps=STEPS, own="own", trials=TRIALS)
    assert [row["start"] for row in table if row["start"] != "own"] == ["Kaiming", "Xavier", "unheard of"]
    write_table(tmp_path / "table.csv", table)
    read = read_table(tmp_path / "table.csv")
    assert read[-1]["accuracy"] == "50.5" and read[-1]["seconds_to_target"] == "20.5"
    assert "np." not in (tmp_path / "table.csv").read_text()


def test_runs_that_do_not_fit_are_refused() -> None:
    def refused(message: str, *rows: Row) -> None:
        with pytest.raises(ValueError, match=message):
            table_of(*rows)

    refused(r"each seed of 'a' must have one run; got seeds \[0, 0\]: keep", run("a", 0, 1.0), run("a", 0, 2.0))
    refused(r"of 'a' must be of one trial; got \[0, 1\]", run("a", 0, 1.0), run("a", 1, 2.0, trial=0))
    refused(r"curve of 'a', seed 0, must have a value for each of the 3 marks; got 1", run("a", 0, 1.0, curve=[1.0]))
    one_mark = task_table([run("own", 0, 50.0, curve=[50.0])], marks=(40,), steps=40, own="own", trials=TRIALS)
    assert one_mark[0]["area"] == ""
