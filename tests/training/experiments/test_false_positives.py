import itertools
import math

import pytest
import torch

from training.engine.records import Row
from training.experiments.choice import chosen_trials, finalists_of
from training.experiments.false_positives import choices, false_positives


def bank(seeds: int, trials: int, effect: float, choice_noise: float, noise: float = 1.0) -> list[Row]:
    """Two starts of one law: trial t is ``effect · t`` points better, with normal noise in what is measured."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for start in ("own", "own, other draws"):
        for seed in range(seeds):
            for trial in range(trials):
                held, test = torch.randn(2, generator=generator).tolist()
                held, test = effect * trial + choice_noise * held, effect * trial + noise * test
                scores = {"held_accuracy": held, "held_log_loss": -held, "accuracy": test, "log_loss": -test}
                rows.append({"start": start, "seed": seed, "trial": trial, **scores})
    return rows


def test_without_a_choice_a_test_at_5_percent_is_wrong_in_5_percent() -> None:
    rows = bank(60, 1, effect=0.0, choice_noise=1.0)
    first, second = torch.tensor([row["accuracy"] for row in rows]).view(2, 60)
    rms = (first - second).square().mean().sqrt().item()  # of a difference whose sign is exchanged at random
    table = false_positives(rows)
    assert [(row["chosen_by"], row["finalists"]) for row in table] == [
        (score, count) for score in ("log_loss", "accuracy") for count in (1, 2)
    ]
    for row in table:
        assert row["false_positives"] == pytest.approx(0.05, abs=0.015) and row["other_trials"] == 0
        assert row["half_width"] == pytest.approx(2.365 * rms * math.sqrt(6.346 / 7 / 8), rel=0.05)  # t, χ² of 7
        assert row["loss_false_positives"] == row["false_positives"] and row["loss_half_width"] == row["half_width"]


def test_trials_that_differ_and_are_chosen_at_random_are_found_to_differ() -> None:
    found = bank(60, 2, effect=50.0, choice_noise=1e6)
    (row,) = false_positives(found, chosen_by=["log_loss"], finalists=[1])
    assert row["other_trials"] == pytest.approx(0.5, abs=0.15)  # over 60 seeds
    expected = row["other_trials"] + 0.05 * (1 - row["other_trials"])  # always where they chose differently
    assert row["false_positives"] == pytest.approx(expected, abs=0.02)
    assert false_positives(found, chosen_by=["log_loss"], finalists=[1]) == [row]  # reproducible


def test_more_finalists_make_it_less_wrong() -> None:
    rates = [
        row["false_positives"]
        for row in false_positives(bank(40, 3, 4.0, 4.0), chosen_by=["accuracy"], finalists=(1, 2, 3))
    ]
    assert rates[0] > 2 * rates[1] and rates[1] > rates[2] and rates[2] < 0.1
    exact = false_positives(bank(40, 3, effect=4.0, choice_noise=0.0), chosen_by=["accuracy"])
    assert all(row["other_trials"] == 0 and row["false_positives"] < 0.075 for row in exact)


@pytest.mark.parametrize("finalists", [1, 2, 4])
def test_it_chooses_as_the_benchmark_does(finalists: int) -> None:
    held = torch.randint(5, (200, 6, 4), generator=torch.Generator().manual_seed(2)).double()  # many ties
    rows = [
        {"start": str(repeat), "seed": seed, "trial": trial, "held_accuracy": held[repeat, seed, trial].item()}
        for repeat, seed, trial in itertools.product(*map(range, held.shape))
    ]
    kept = finalists_of([row for row in rows if row["seed"] == 0], trials=4, finalists=finalists)
    chosen = chosen_trials(rows, kept)
    assert choices(held, finalists)[:, 0].tolist() == [chosen[str(repeat)] for repeat in range(200)]


def test_arms_are_compared_at_the_trial_that_is_best_on_held_out_images() -> None:
    rows = [row | ({"accuracy": 50.0} if row["trial"] else {}) for row in bank(11, 2, effect=0.0, choice_noise=0.0)]
    for best, width in ((1, 0.0), (0, 1.2)):  # without noise in trial 1
        held = [row | {"held_accuracy": float(row["trial"] == best)} for row in rows]
        (row,) = false_positives(held, chosen_by=["accuracy"], finalists=[2])
        assert row["half_width"] == pytest.approx(width, abs=0.5 * width) and row["other_trials"] == 0
        assert (row["false_positives"] == 0) == (best == 1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_trials_that_diverge_are_not_chosen_and_leave_no_difference_of_losses(loss: float) -> None:
    rows = bank(20, 2, effect=1.0, choice_noise=0.0)
    held = [row | ({"held_log_loss": loss} if row["trial"] else {}) for row in rows]
    kept = false_positives(held, chosen_by=["log_loss"])[0]
    assert kept["other_trials"] == kept["diverged"] == 0 and kept["half_width"] < 2
    broken = [row | ({"log_loss": loss} if row["seed"] == 3 else {}) for row in rows]
    row = false_positives(broken, chosen_by=["accuracy"])[0]
    assert row["diverged"] == pytest.approx(8 / 20, abs=0.05)
    assert math.isfinite(row["loss_half_width"]) and 0 < row["loss_false_positives"] < 0.12
    all_broken = false_positives([row | {"log_loss": loss} for row in rows], chosen_by=["accuracy"])[0]
    assert all_broken["loss_half_width"] == all_broken["loss_false_positives"] == "" and all_broken["diverged"] == 1


def test_a_bank_with_missing_runs_is_refused() -> None:
    rows = bank(11, 2, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"screens and 11 paired seeds take a bank of at least 12; got 11"):
        false_positives(rows, seeds=11)
    with pytest.raises(ValueError, match=r"chosen_by must be some of accuracy, log_loss; got area"):
        false_positives(rows, chosen_by=["area"])
    with pytest.raises(ValueError, match=r"44 in all; it lacks 1, such as \('own', 0, 0\)"):
        false_positives(rows[1:])
    with pytest.raises(ValueError, match="44 in all; it has 45 rows"):
        false_positives([*rows, rows[0]])
    with pytest.raises(ValueError, match="runs of two starts; got 1: own"):
        false_positives(rows[:22])
