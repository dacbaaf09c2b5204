from pathlib import Path

import pytest

from training.engine.ledger import read_runs, take_runs, write_runs
from training.engine.records import read_metrics, record_metrics

RUNS = [{"of": "a", "seed": seed, "value": seed / 2} for seed in range(3)]


def test_runs_are_read_as_written(tmp_path: Path) -> None:
    rows = [*RUNS, {"of": "a", "curve": [1.0, float("inf")]}]
    write_runs(tmp_path / "new" / "runs.jsonl", rows)
    assert read_runs(tmp_path / "new" / "runs.jsonl") == rows
    assert read_runs(tmp_path / "other.jsonl") == []


@pytest.mark.parametrize("line", ['{"of": "a", "se', "[1]"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "runs.jsonl").write_text(f'{{"of": "a"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*runs\.jsonl is not a JSON object.*restore"):
        read_runs(tmp_path / "runs.jsonl")


def test_what_a_folder_lacks_is_taken_from_the_record_once(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.jsonl", [*RUNS, {"of": "b", "seed": 9}])
    record_metrics(tmp_path, of="a", seed=1, value=7.0)
    record_metrics(tmp_path, of="b", seed=2)
    for taken in (2, 0):
        found = take_runs(
            tmp_path / "runs.jsonl", tmp_path, of_now=lambda row: row["of"] == "a", key=lambda row: row["seed"]
        )
        assert found == taken
    of_now = {row["seed"]: row["value"] for row in read_metrics(tmp_path) if row["of"] == "a"}
    assert of_now == {0: 0.0, 1: 7.0, 2: 1.0} and len(read_metrics(tmp_path)) == 4
