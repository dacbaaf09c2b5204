"""A publication that is disturbed at each of its requests, and then made again."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from dwp_init import Gaussian, save_prior
from dwp_init.folder import read_files
from tests.fuzz.children import Child, Ended, fork
from tests.fuzz.target import Verdict
from tests.localhub import Call, LocalHub
from training.__main__ import main
from training.fits.statistics import describe

REPO = "dwp-init/mine"
SITUATIONS = ("first release", "next release")
FAULTS = ("refused", "dropped", "cut", "away", "client killed before", "client killed after")
_ACTIONS: dict[str, Any] = {"refused": 500, "dropped": "drop", "cut": "cut", "away": "drop"}
_SECONDS = 120.0
_PLACE = tempfile.TemporaryDirectory(prefix="dwp-init-fuzz-")  # of the folders that are published, and of caches


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong, and at which request of a publication, from 1; 0 is none."""

    situation: str
    fault: str
    request: int


@cache
def folder(version: int) -> Path:
    """A folder of a prior that can be published, in two versions."""
    place = tempfile.mkdtemp(dir=_PLACE.name)
    kernels = torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(version))
    prior = Gaussian((1, 3, 3)).fit_(kernels)
    drawn = describe(prior.sample(10_000, torch.Generator().manual_seed(7)))
    prior.details = {"name": "mine", "license": "MIT", "metrics": {"log_prob": 12.5, "samples": {"drawn": drawn}}}
    return save_prior(prior, Path(place) / "mine")


def disturbances() -> Iterator[Disturbance]:
    """Every fault at every request of both publications."""
    for situation in SITUATIONS:
        count = _publish(Disturbance(situation, FAULTS[0], 0))[1]
        for fault in FAULTS:
            yield from (Disturbance(situation, fault, request) for request in range(1, count + 1))


def judge(disturbance: Disturbance) -> Verdict:
    """Disturbs a publication, looks at what the Hub holds, and publishes again."""
    return _publish(disturbance)[0]


def _publish(disturbance: Disturbance) -> tuple[Verdict, int]:
    """Returns the verdict, and how many requests the first publication made."""
    version = SITUATIONS.index(disturbance.situation) + 1
    first, again = (_waiting(version) for _ in range(2))  # before there are threads, those of the Hub
    with LocalHub() as hub:
        if version > 1:
            hub.add_repo(REPO, read_files(folder(1)), tag="v1")
        before, requests = _tree(hub), iter(range(1, 10**6))
        hub.fail("", _faults(disturbance, first[0], requests), times=10**6)
        ended = _go(first, hub)
        hub.faults.clear()
        count, seen = next(requests) - 1, _tree(hub)
        second = _go(again, hub)
        return _verdict(disturbance, ended, second, before, seen, hub, version), count


def _faults(disturbance: Disturbance, child: Child, requests: Iterator[int]) -> Callable[[Call], Any]:
    def meet(call: Call) -> Any:
        number = next(requests)
        if number != disturbance.request and not (disturbance.fault == "away" and number > disturbance.request > 0):
            return None
        if disturbance.fault.startswith("client killed"):
            child.kill(signal.SIGKILL)
        return "drop" if disturbance.fault == "client killed before" else _ACTIONS.get(disturbance.fault)

    return meet


def _waiting(version: int) -> tuple[Child, int]:
    """A process that publishes as soon as it is told where; with the end of a pipe by which to tell it."""
    reader, writer = os.pipe()
    words = ["publish", str(folder(version)), "--repo", REPO, "--push", "--tag", f"v{version}"]

    def publish() -> int:
        os.close(writer)
        if not (endpoint := os.read(reader, 1000).decode()):
            return 0
        os.environ["HF_TOKEN"] = "hf_write"
        constants.ENDPOINT = endpoint
        constants.HF_HUB_CACHE = tempfile.mkdtemp(dir=_PLACE.name)
        constants.HUGGINGFACE_CO_URL_TEMPLATE = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        time.sleep = lambda seconds: None  # between the client's attempts
        return main(words)

    child = fork(publish)
    os.close(reader)
    return child, writer


def _go(waiting: tuple[Child, int], hub: LocalHub) -> Ended:
    child, writer = waiting
    os.write(writer, hub.endpoint.encode())
    os.close(writer)
    return child.wait(_SECONDS)


def _tree(hub: LocalHub) -> dict[str, bytes]:
    """What the head of the repository holds, without the file with which a repository begins."""
    tree = hub.repos[REPO].tree("main") if REPO in hub.repos else {}
    return {name: file.data for name, file in tree.items() if name != ".gitattributes"}


def _verdict(
    disturbance: Disturbance, ended: Ended, second: Ended, before: Any, seen: Any, hub: LocalHub, version: int
) -> Verdict:
    killed = disturbance.fault.startswith("client killed") and disturbance.request > 0
    if not (ended.status == 0 or ended.is_clear_error or (killed and ended.status == -signal.SIGKILL)):
        return Verdict("crash", f"{disturbance}: status {ended.status}, {ended.said[-300:]}")
    after, repo = _tree(hub), hub.repos.get(REPO)
    ours = read_files(folder(version))
    if second.status or repo is None or {name: after.get(name) for name in ours} != ours:
        return Verdict("silent", f"{disturbance}: not published by the second command: {second.said[-300:]}")
    if seen not in (before, after):
        return Verdict("silent", f"{disturbance}: the Hub held a mix of two versions: {sorted(seen)}")
    if repo.tags.get(f"v{version}") != repo.branches["main"] or len(repo.tags) != version:
        return Verdict("silent", f"{disturbance}: the tags are {repo.tags}, the head is {repo.branches['main']}")
    return Verdict("same" if ended.status == 0 else "refused")
