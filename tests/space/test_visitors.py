"""The races of visitors: the last one that each asked for, and no other."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from space.interface import demonstration
from space.race import Race
from space.visitors import Visitors

FIRST, SECOND = Race("test_resnet", "natural", seeds=2), Race("test_resnet", "natural", seeds=3)


def test_another_race_replaces_one_that_waits_and_runs_once() -> None:
    visitors = Visitors()
    visitors.ask("a", FIRST)
    visitors.ask("a", SECOND)
    places = [visitors.states("a") for _ in range(2)]
    assert len(next(places[0]).accuracies["the prior"]) == 3
    assert list(places[1]) == []
    visitors.stop("a")
    assert [state.how for state in places[0]] == ["Stopped"] and len(visitors) == 0


def test_another_race_ends_one_that_runs_which_then_says_no_more() -> None:
    visitors = Visitors()
    visitors.ask("a", FIRST)
    place = visitors.states("a")
    next(place)
    visitors.ask("a", SECOND)
    assert list(place) == [] and len(visitors) == 1
    assert len(next(visitors.states("a")).accuracies["the prior"]) == 3


def test_a_race_that_is_stopped_while_it_waits_never_runs() -> None:
    visitors = Visitors()
    visitors.ask("a", FIRST)
    visitors.ask("b", SECOND)
    assert visitors.stop("a") and not visitors.stop("a") and len(visitors) == 1
    assert list(visitors.states("a")) == []
    running = visitors.states("b")
    assert next(running).how == "Running" and not visitors.stop("b")  # the race itself says that it was stopped
    assert next(running).how == "Stopped"


@pytest.mark.parametrize("end", ["fails", "is left by the server"])
def test_nothing_is_kept_of_a_race_that(end: str) -> None:
    visitors = Visitors()
    visitors.ask("a", Race("resnte18", "natural"))
    place = visitors.states("a")
    next(place)
    assert len(visitors) == 1
    if end == "fails":
        with pytest.raises(ValueError, match="resnte18"):
            next(place)
    place.close()
    assert len(visitors) == 0


@pytest.mark.parametrize("runs", [False, True])
def test_the_race_of_a_visitor_who_leaves_the_page_ends(runs: bool) -> None:
    visitors = Visitors()

    async def page() -> Any:  # Gradio leaves an event loop open if none runs
        return demonstration(visitors)

    with ThreadPoolExecutor(1) as pool:  # Playwright may have a loop running in this thread
        functions = pool.submit(lambda: asyncio.run(page())).result().fns.values()
    (leave,) = [each.fn for each in functions if any(event == "unload" for _, event in each.targets)]
    visitors.ask("a", FIRST)
    place = visitors.states("a")
    if runs:
        next(place)
    leave(SimpleNamespace(session_hash="a"))
    assert [state.how for state in place] == ["Stopped"] * runs and len(visitors) == 0
