from typing import Any

import numpy as np
import pytest

from training.engine.records import Row
from training.experiments.choice import chosen_trials, shrunken

COMMON = np.array([3.0, 4.0, 2.0, 3.5, 0.0])  # what the trials are worth to all starts; the second is the best


def values(starts: int, seeds: int, seed: int, noise: float = 1.0, repeats: int = 300) -> Any:
    """Accuracies ``(repeats, starts, seeds, trials)`` of starts of one law; a seed suits or does not suit all alike."""
    random = np.random.default_rng(seed)
    of_seeds = random.normal(0, 3, (repeats, 1, seeds, 1))
    return 40 + COMMON + of_seeds + random.normal(0, noise, (repeats, starts, seeds, len(COMMON)))


def rows_of(accuracies: Any) -> list[Row]:
    return [
        {"start": f"start {start}", "seed": 1000 + seed, "trial": trial, "accuracy": accuracy}
        for (start, seed, trial), accuracy in np.ndenumerate(accuracies)
    ]


@pytest.mark.parametrize(("starts", "gain"), [(4, 0.08), (16, 0.2)])
def test_starts_of_one_law_take_the_same_trial_more_often_than_by_their_own_means(starts: int, gain: float) -> None:
    drawn = values(starts, 2, seed=starts)
    own = drawn.mean(2).argmax(2)
    ours = np.stack([shrunken(each).argmax(1) for each in drawn])
    alike = [(found[:, 0] == found[:, 1]).mean() for found in (own, ours)]
    best = [(found == COMMON.argmax()).mean() for found in (own, ours)]
    assert alike[1] > alike[0] + gain and best[1] > best[0] + gain / 2


def test_starts_that_differ_beyond_noise_take_their_own_trials() -> None:
    accuracies = values(8, 2, seed=1, noise=0.1, repeats=1)[0]
    accuracies[3:5, :, 0] += 6
    chosen = chosen_trials(rows_of(accuracies))
    assert chosen == {f"start {start}": 0 if start in (3, 4) else 1 for start in range(8)}


@pytest.mark.parametrize(("width", "share"), [(5, 1 - 1 / 42.1875), (1, 0)])  # F of 3 and 3 degrees: p = 0.01, 0.3
def test_the_share_is_what_is_not_noise_between_seeds_if_an_f_test_sees_it(width: int, share: float) -> None:
    means = width * np.array([[0.0, 4.0], [0.0, 1.0], [0.0, -1.0], [0.0, -3.0]])
    apart = np.array([1.0, -1.0, -1.0, 1.0])  # of the second trial, from the mean over seeds
    accuracies = np.stack([means, means], axis=1)
    accuracies[:, 0, 1] += 2 * apart
    accuracies[:, 1, 1] -= 2 * apart
    # less the median of two trials: means of 2, 0.5 … with variance 6.75 / 3, and noise of variance 8 / 3 / 2
    assert shrunken(accuracies)[:, 1] == pytest.approx(width * np.array([2.0, 0.5, -0.5, -1.5]) * share)


def test_a_trial_that_fails_for_one_start_does_not_move_the_others() -> None:
    accuracies = values(6, 2, seed=3, noise=0.2, repeats=1)[0]
    failed = accuracies.copy()
    failed[0, :, 2] = 10.0
    before, after = shrunken(accuracies), shrunken(failed)
    kept = [0, 1, 3, 4]
    assert after[1:, kept] == pytest.approx(before[1:, kept], abs=0.3)
    assert before[1:].argmax(1).tolist() == after[1:].argmax(1).tolist() and after[0, 2] < -20


def test_a_trial_that_fails_for_one_start_does_not_let_the_others_part() -> None:
    drawn = values(6, 2, seed=3)
    failed = drawn.copy()
    failed[:, 0, :, 2] = 10.0
    chosen = [np.stack([shrunken(each)[1:].argmax(1) for each in part]) for part in (drawn, failed)]
    alike = [(part == part[:, :1]).all(1).mean() for part in chosen]
    assert alike[0] > 0.7 and alike[1] > alike[0] - 0.1


@pytest.mark.parametrize(("starts", "seeds"), [(5, 1), (1, 3)])
def test_with_one_seed_or_one_start_each_takes_its_own_best(starts: int, seeds: int) -> None:
    accuracies = values(starts, seeds, seed=4, noise=3, repeats=1)[0]
    own = accuracies.mean(1) if starts > 1 else (accuracies - np.median(accuracies, axis=2, keepdims=True)).mean(1)
    chosen = chosen_trials(rows_of(accuracies))
    assert list(chosen.values()) == own.argmax(1).tolist()


def test_all_that_are_equal_take_the_first_trial_and_numbers_of_trials_are_kept() -> None:
    rows = [row | {"accuracy": 50.0} for row in rows_of(values(3, 2, seed=5, repeats=1)[0])]
    assert set(chosen_trials(rows).values()) == {0}
    later = [row for row in rows_of(values(3, 2, seed=5, noise=0.01, repeats=1)[0]) if row["trial"] >= 2]
    assert set(chosen_trials(later).values()) == {3}


def test_without_noise_starts_that_differ_take_their_own_trials() -> None:
    accuracies = np.array([[10.0, 10.0], [10.0, 20.0], [30.0, 20.0]])[:, None].repeat(2, axis=1)
    assert list(chosen_trials(rows_of(accuracies)).values()) == [0, 1, 0]


def test_missing_runs_are_named() -> None:
    rows = rows_of(values(3, 2, seed=6, repeats=1)[0])
    message = r"each of 3 starts needs runs of the 2 .* 2 are missing, such as 'start 1', seed 1000, trial 4: run these"
    with pytest.raises(ValueError, match=message):
        chosen_trials([row for row in rows if (row["start"], row["trial"]) != ("start 1", 4)])
    with pytest.raises(ValueError, match=r"5 are missing, such as 'start 2', seed 1001, trial 0"):
        chosen_trials([row for row in rows if (row["start"], row["seed"]) != ("start 2", 1001)])
