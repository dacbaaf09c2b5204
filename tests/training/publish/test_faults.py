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
    ("fig7", "fig7", "alone-1", "SIGKILL", "call", "resumed, the same"),
    ("fig7", "fig7", "1", "SIGKILL", "call", "said what to remove, then the same"),
    ("choose_family", "vae_7x7", "1", "SIGINT", "time", "ended before it"),
    ("converge_mnist", "vae_7x7", "2", "SIGINT", "time", "differs"),
    ("converge_mnist", "vae_7x7", "2", "full disk", "call", "resumed, the same"),
]
COLUMNS = ("recipe", "stage", "run", "kill", "moment", "outcome")


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    kills = [dict(zip(COLUMNS, row, strict=True)) for row in KILLS]
    monkeypatch.setattr(faults, "read_record", {"faults": INPUTS, "kills": kills}.__getitem__)
    return fault_values()


def test_sums(values: dict[str, Any]) -> None:
    names = ("folders", "hub", "models", "kills", "other", "runs", "again", "met", "alone", "faults")
    assert [values[name] for name in names] == [34, 5, 7, 3, 1, 3, 1, 2, 1, 4]
    assert [row["faults"] for row in values["rows"]] == [2, 1, 0, 0]


def test_a_stage_that_had_ended_was_not_disturbed(values: dict[str, Any]) -> None:
    assert values["ways"][:2] == [
        {"kill": "SIGKILL", "moment": "call", "kills": 2, "same": 1, "removed": 1, "before": 0, "faults": 0},
        {"kill": "SIGINT", "moment": "time", "kills": 1, "same": 0, "removed": 0, "before": 1, "faults": 1},
    ]


def test_stages_are_counted_by_their_class_and_by_the_least_disturbed(values: dict[str, Any]) -> None:
    found = {row.pop("class"): row for row in values["classes"]}
    assert found["SampleGrid"] == {"stages": 1, "SIGKILL": 2, "SIGTERM": 0, "SIGINT": 0, "fewest": 0, "other": 0}
    vae = found["FitVAE"]
    assert vae["SIGINT"] == vae["other"] == 1 and vae["stages"] == 4 and vae["fewest"] == 0
    assert "EngineCost" not in found and found["Gap"]["SIGKILL"] == 0


def test_each_signal_has_to_meet_each_stage() -> None:
    rows = [("fig7", "fig7", "1", signal, "call", "resumed, the same") for signal in faults.SIGNALS for _ in range(2)]
    (row,) = [
        row
        for row in faults.class_rows([dict(zip(COLUMNS, row, strict=True)) for row in rows])
        if row["class"] == "SampleGrid"
    ]
    assert row["fewest"] == 2
