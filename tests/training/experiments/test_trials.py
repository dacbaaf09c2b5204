import math

import pytest

from training.experiments.trials import DECAYS, RATES, quasi_random_trials


def test_trials_are_haltons_points_on_logarithmic_scales() -> None:
    first, second, third = quasi_random_trials(3)
    assert first.rate == pytest.approx(math.sqrt(RATES[0] * RATES[1]), rel=2e-3)  # 1/2 in base 2
    assert first.decay == pytest.approx(DECAYS[0] * (DECAYS[1] / DECAYS[0]) ** (1 / 3), rel=2e-3)  # 1/3 in base 3
    assert math.log(second.rate / RATES[0]) / math.log(RATES[1] / RATES[0]) == pytest.approx(1 / 4, abs=1e-3)
    assert math.log(third.decay / DECAYS[0]) / math.log(DECAYS[1] / DECAYS[0]) == pytest.approx(1 / 9, abs=1e-3)


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert quasi_random_trials(20)[:5] == quasi_random_trials(5)
    assert len({trial.rate for trial in quasi_random_trials(20)}) == 20


def test_no_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more; got 0"):
        quasi_random_trials(0)
