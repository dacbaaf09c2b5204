"""What the page on faults counts."""

from typing import Any

import pytest

from training.publish import faults
from training.publish.faults import fault_values

INPUTS = [
    {"kind": "prior folders, damaged bytes", "tries": "30", "crash": "0", "silent": "2", "slow": "0", "large": "0"},
    {"kind": "run folders", "tries": "4", "crash": "0", "silent": "0", "slow": "1", "large": "0"},
    {"kind": "publishing, first release: cut", "tries": "5", "crash": "0", "silent": "0", "slow": "0", "large": "0"},
    {"kind": "models through apply_", "tries": "7", "crash": "0", "silent": "0", "slow": "0", "large": "0"},
]
KILLS = [
    ("a", "one", "SIGKILL", "call", "resumed, the same"),
    ("a", "one", "SIGKILL", "call", "said what to remove, then the same"),
    ("a", "two", "SIGINT", "time", "ended before it"),
    ("b", "three", "SIGINT", "time", "differs"),
    ("b", "three", "full disk", "call", "resumed, the same"),
]


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    kills = [dict(zip(("recipe", "stage", "kill", "moment", "outcome"), row, strict=True)) for row in KILLS]
    monkeypatch.setattr(faults, "read_record", {"faults": INPUTS, "kills": kills}.__getitem__)
    return fault_values()


def test_sums(values: dict[str, Any]) -> None:
    names = ("folders", "hub", "models", "kills", "other", "stages", "recipes", "faults")
    assert [values[name] for name in names] == [34, 5, 7, 3, 1, 3, 2, 4]
    assert [row["faults"] for row in values["rows"]] == [2, 1, 0, 0]
    assert values["most"] == {"recipe": "a", "tries": 3}


def test_a_stage_that_had_ended_was_not_disturbed(values: dict[str, Any]) -> None:
    assert values["ways"][:2] == [
        {"kill": "SIGKILL", "moment": "call", "kills": 2, "same": 1, "removed": 1, "before": 0, "faults": 0},
        {"kill": "SIGINT", "moment": "time", "kills": 1, "same": 0, "removed": 0, "before": 1, "faults": 1},
    ]
