"""Answers of a Hub that is broken or hostile, while a prior is downloaded from it."""

import contextlib
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from dwp_init import PriorError, load_prior
from dwp_init.folder import CONFIG, MODEL
from tests.fuzz.mutations import damaged
from tests.fuzz.prior_folders import same_values, saved, undamaged
from tests.fuzz.target import Differs, Outcome, Target
from tests.localhub import LocalHub
from tests.localhub.answers import Answer, HubError

REPO, KIND = "user/small", "gaussian"
REQUESTS = (f"HEAD hub .*{CONFIG}", f"GET hub .*{CONFIG}", f"HEAD hub .*{MODEL}", "GET files", "GET hub .*/tree/", "")
HEADERS = ("ETag", "Content-Length", "X-Repo-Commit", "X-Linked-Size", "X-Linked-Etag", "Location", "Content-Range")
ODD = ("", '""', '"x"', "..", "../../x", "0", "-1", "99999999999", "a" * 500, "main", "http://127.0.0.1:9/x", "\t", "é")
STATUSES = (200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 410, 416, 418, 429, 500, 502, 503, 599)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests that fit a pattern.

    Args:
        pattern: As for :meth:`tests.localhub.LocalHub.fail`.
        action: The name of an action there, or an :class:`Answer` to give instead.
        times: How many requests meet it.
    """

    pattern: str
    action: Any
    times: int


@cache
def hub() -> LocalHub:
    """A Hub with one prior, for the life of this process."""
    running = LocalHub()
    running.add_repo(REPO, saved(KIND), tag="v1")
    return running


def download(case: list[Fault], folder: Path) -> Outcome:
    """Loads a prior while faults are met: an error says so, or the prior is the one that was published.

    Then, without faults, the same cache gives the prior, whatever was stored in it.
    """
    running = hub()
    with running.lock:
        running.faults.clear()
    for fault in case:
        running.fail(fault.pattern, _given(fault.action), fault.times)
    try:
        if not _loads(folder):
            raise Differs("another prior was loaded")
    finally:
        with running.lock:
            running.faults.clear()
        try:
            whole = _loads(folder)
        except REFUSALS as error:
            raise Differs(f"the cache is spoiled: without faults, {error}") from error
        outside = [path for path in folder.iterdir() if path.name != "cache"]
        shutil.rmtree(folder / "cache")
        if outside or not whole:
            raise Differs(f"the cache is spoiled: another prior is loaded from it, or {outside} were written")
    return "same"


def _loads(folder: Path) -> bool:
    """Loads the prior through a cache in the folder; returns whether it is the one that was published."""
    with _quiet():
        found = load_prior(f"{REPO}@v1", endpoint=hub().endpoint, cache_dir=folder / "cache", token=False)
    return same_values(found, undamaged(KIND).state_dict())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out warnings, and the waits between the client's attempts."""
    sleep = time.sleep
    time.sleep = lambda seconds: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        time.sleep = sleep


def _given(action: Any) -> Any:
    if not isinstance(action, Answer):
        return action

    def answer(call: object) -> None:
        error = HubError(400, "")
        error.answer = action
        raise error

    return answer


def _cases() -> SearchStrategy[list[Fault]]:
    files = saved(KIND)
    bodies = st.one_of(
        *[damaged(content) for content in files.values()], st.sampled_from([*files.values(), b"{}", b""])
    )
    good: Mapping[str, str] = {"X-Repo-Commit": "0123456789" * 4, "ETag": f'"{"a" * 40}"'}
    headers = st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(ODD), max_size=3)
    answers = st.builds(
        lambda body, status, more, plain: Answer(body, status, {**({} if plain else good), **more}),
        bodies,
        st.sampled_from([200] * 10 + list(STATUSES)),
        headers,
        st.booleans(),
    )
    actions = st.one_of(st.sampled_from(["drop", "cut", "flip", *(each for each in STATUSES if each >= 400)]), answers)
    fault = st.builds(Fault, st.sampled_from(REQUESTS), actions, st.sampled_from([1, 1, 2, 20]))
    return st.lists(fault, min_size=1, max_size=3)


REFUSALS = (PriorError, ValueError)
TARGETS = (Target("answers of the Hub", _cases, download, REFUSALS, names=False, seconds=20, tries=40),)
