"""What is on a disk after a loss of power, and that a prior and a run survive it."""

import os
from pathlib import Path

import pytest

from tests.fuzz.power import losses, targets
from tests.fuzz.target import judge

pytestmark = pytest.mark.training


def test_what_is_not_synced_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careless() -> None:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(tmp_path / "a")

    assert losses(tmp_path, careless) == [{"a": b"old"}, {"a": b"old", "new": b""}, {"a": b""}]


def test_what_is_synced_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careful() -> None:
        with (tmp_path / "new").open("wb") as file:
            file.write(b"new")
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "new").replace(tmp_path / "a")
        with (tmp_path / "a").open("ab") as file:
            file.write(b"er")
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "a").unlink()
        handle = os.open(tmp_path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    found = losses(tmp_path, careful)
    assert found[:4] == [{"a": b"old"}, {"a": b"old", "new": b""}, {"a": b"old", "new": b"new"}, {"a": b"new"}]
    assert found[-2:] == [{"a": b"newer"}, {}]


@pytest.mark.parametrize(("number", "step"), [(0, 1), (1, 9)])
def test_a_loss_of_power_at_any_moment_changes_no_result(number: int, step: int, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    target, states = list(targets(tmp_path / "scratch"))[number]
    assert len(states) > (5, 50)[number]
    for place, state in enumerate(states[::step]):
        (tmp_path / str(place)).mkdir()
        verdict = judge(target, state, tmp_path / str(place))
        assert verdict.outcome in ("same", "refused"), verdict
