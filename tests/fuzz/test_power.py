"""What is on a disk after a loss of power, and that a prior and a run survive it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dwp_init.storage import sync_folder, write_bytes
from tests.fuzz.folders import contents
from tests.fuzz.power import losses, lost, targets
from tests.fuzz.target import judge
from training.engine.records import record_metrics, write_table

pytestmark = pytest.mark.training


def put(path: Path, content: bytes, mode: str = "wb") -> None:
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def test_what_is_not_synced_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careless() -> None:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(tmp_path / "a")

    states = [{"a": b"old"}, {"a": b"old", "new": b""}, {"a": b""}]
    assert losses(tmp_path, careless) == (states, states)


def test_names_are_there_once_their_own_folder_is_synced(tmp_path: Path) -> None:
    def careless() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            put(tmp_path / name / "file", name.encode())
        sync_folder(tmp_path / "b")

    _, ends = losses(tmp_path, careless)
    assert ends == [{}, {"a/file": b"a"}, {"b/file": b"b"}, {"a/file": b"a", "b/file": b"b"}]
    assert lost(tmp_path, ends) == ["a/file", "b/file"]
    _, ends = losses(tmp_path, lambda: [sync_folder(tmp_path), put(tmp_path / "a" / "more", b"")])
    assert lost(tmp_path, ends) == ["a/more"]


WRITERS: list[Callable[[Path], object]] = [
    lambda folder: write_bytes(folder / "file", b"1"),
    lambda folder: write_table(folder / "a" / "b" / "table.csv", [{"a": 1}]),
    lambda folder: [record_metrics(folder, epoch=epoch) for epoch in range(2)],
]


@pytest.mark.parametrize("act", WRITERS)
def test_what_is_written_is_on_the_disk(act: Callable[[Path], object], tmp_path: Path) -> None:
    _, ends = losses(tmp_path, lambda: act(tmp_path))
    assert ends == [contents(tmp_path)] != [{}]


def test_what_is_synced_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careful() -> None:
        put(tmp_path / "new", b"new")
        (tmp_path / "new").replace(tmp_path / "a")
        put(tmp_path / "a", b"er", "ab")
        (tmp_path / "a").unlink()
        sync_folder(tmp_path)

    found, ends = losses(tmp_path, careful)
    assert found[:4] == [{"a": b"old"}, {"a": b"old", "new": b""}, {"a": b"old", "new": b"new"}, {"a": b"new"}]
    assert found[-2:] == [{"a": b"newer"}, {}] and ends == [{}]


@pytest.mark.parametrize(("number", "step"), [(0, 1), (1, 1), (2, 9)])
def test_a_loss_of_power_at_any_moment_changes_no_result(number: int, step: int, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    target, states = list(targets(tmp_path / "scratch"))[number]
    assert len(states) > (4, 5, 50)[number]
    for place, state in enumerate(states[::step]):
        (tmp_path / str(place)).mkdir()
        verdict = judge(target, state, tmp_path / str(place))
        assert verdict.outcome in ("same", "refused"), verdict
