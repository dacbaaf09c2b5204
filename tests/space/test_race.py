"""The race: two starts that differ in what the prior draws alone, in turns, until the time is over."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from threading import Event
from types import SimpleNamespace

import pytest
import torch

from space import race as module
from space.race import FROM_OWN, FROM_PRIOR, Digits, Race, RaceState, race_svg, verdict_text


def test_a_race_ends_with_its_time_and_has_a_curve_for_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    states = list[RaceState]()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: len(states)))
    for state in Race("test_resnet", "natural", seeds=2, seconds=3).run():
        states.append(state)
    building, *running, last = states
    assert building.steps == () and verdict_text(building).startswith("Building 4 networks; they are first tested")
    assert "after 0 steps" in race_svg(building)
    assert last.how == "Finished" and {each.how for each in running} <= {"Running"}
    assert [each.steps for each in (*running, last)] == [(10,), (10, 20), (10, 20, 30), (10, 20, 30)]
    assert [each.seconds for each in (*running, last)] == [0, 1, 2, 2]
    for name in (FROM_PRIOR, FROM_OWN):
        assert last.accuracies[name].shape == (2, 3)
        assert ((last.accuracies[name] >= 0) & (last.accuracies[name] <= 100)).all()
    assert not torch.equal(last.accuracies[FROM_PRIOR], last.accuracies[FROM_OWN])


def test_the_same_race_is_run_again() -> None:
    first, second = (next(islice(Race("test_resnet", "natural").run(), 1, None)) for _ in range(2))
    for name in (FROM_PRIOR, FROM_OWN):
        torch.testing.assert_close(first.accuracies[name], second.accuracies[name], atol=2, rtol=0)


@pytest.mark.parametrize("how", ["Stopped", "Finished"])
@pytest.mark.parametrize("steps", [0, 3, 43])
def test_a_race_ends_within_a_turn_when_it_is_stopped_or_its_time_is_over(
    steps: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, taken, clock = Event(), list[int](), [0.0]
    race, train = (
        Race("test_resnet", "natural", seeds=2, seconds=0 if steps == 0 and how == "Finished" else 9),
        module.train,
    )

    def end() -> None:
        if how == "Stopped":
            stop.set()
        clock[0] = 9.0

    if not steps:
        end()

    def counted(*arguments: object, progress: Callable[[int], None]) -> None:
        def after(one: int) -> None:
            taken.append(one)
            if len(taken) == steps:
                end()
            progress(one)

        train(*arguments, progress=after)

    monkeypatch.setattr(module, "train", counted)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    *running, last = race.run(stop)
    assert steps <= len(taken) <= steps + 1  # the other network of two finishes its step
    assert [(len(each.steps), each.how) for each in running] == [(n, "Running") for n in range(1 + steps // 40)]
    assert last == replace(running[-1], how=how)
    early = {
        "Stopped": "Stopped while building 4 networks",
        "Finished": "No time was left for 4 networks; .* allow more",
    }
    assert re.match(f"{how} after 10 steps" if steps > 40 else early[how], verdict_text(last))


def test_digits_are_balanced_and_apart() -> None:
    digits = Digits.load()
    assert digits.images.shape == (500, 1, 32, 32) and digits.labels.bincount().tolist() == [50] * 10
    assert len(digits.test_labels) == len(digits.test_images) == 300
    both = torch.cat([digits.images, digits.test_images]).flatten(1)
    assert len(both.unique(dim=0)) == 800


def test_what_it_says_follows_from_the_curves() -> None:
    accuracies = {FROM_PRIOR: torch.tensor([[20.0, 60], [30, 40]]), FROM_OWN: torch.tensor([[10.0, 50], [40, 50]])}
    state = RaceState((5, 10), accuracies, 61.2, "Finished")
    assert verdict_text(state) == (
        "Finished after 10 steps of each network and 61 s. Mean over the whole curve: +0.0 points for the prior, "
        "ahead in 1 of 2 seeds; now +0.0 points."
    )
    chart = race_svg(state)
    assert f">{FROM_PRIOR}</text>" in chart and "after 10 steps" in chart


@pytest.mark.parametrize(
    ("race", "message"),
    [
        (Race("test_resnet", "natural", seeds=1), "a band takes 2 seeds or more; got 1"),
        (Race("test_maxvit", "natural"), "test_maxvit does not take images of 32×32 pixels: .*; race another"),
        (Race("resnet101", "natural", seeds=4), "8 networks of resnet101 have 340 million .* takes up to 200 million"),
        (Race("test_resnet", "brain-mri"), "no layer can be initialised: 'brain-mri' is for 3×3×3 kernels"),
    ],
)
def test_races_that_cannot_be_run_are_refused(race: Race, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(race.run())
