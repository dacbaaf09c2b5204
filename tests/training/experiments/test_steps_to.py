import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.engine.records import record_metrics
from training.engine.stage import Context
from training.experiments.paper import STEPS_TO
from training.experiments.steps_to import StepsTo
from training.starts.controls import XAVIER
from training.starts.priors import DWP

MARKS = (10, 20, 40)
CURVES = {  # by initialisation and seed; levels 50 and 80 are reached at…
    (XAVIER, 0): (40.0, 60.0, 80.0),  # 15, 40
    (XAVIER, 1): (30.0, 70.0, 90.0),  # 15, 30
    (DWP, 0): (50.0, 80.0, 70.0),  # 10, 20
    (DWP, 1): (45.0, 55.0, 45.0),  # 15, never
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run whose rows came in no order."""
    source = tmp_path / "runs"
    source.mkdir()
    for (init, seed), curve in reversed(CURVES.items()):
        record_metrics(source, init=init, seed=seed, accuracy=curve)
    (source / "config.json").write_text(json.dumps({"settings": {"marks": MARKS}}))
    (source / "done.json").write_text(json.dumps({"table": [{"init": XAVIER}, {"init": DWP}]}))
    return tmp_path


STAGE = StepsTo(("runs",), "made_up", levels=(50.0, 80.0))


def test_the_table(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = {"dwp": {50.0: 20.0}, "xavier": {50.0: 50.0, 80.0: 90.0}}
    monkeypatch.setitem(STEPS_TO, "fig4b", paper)
    table = replace(STAGE, figure="fig4b").run(out / "steps", Context(out))["table"]
    assert [(row["init"], row["level"]) for row in table] == [
        (i, level) for i in (XAVIER, DWP) for level in (50.0, 80.0)
    ]
    xavier, late, dwp, never = table
    assert (xavier["steps"], xavier["steps_sd"], xavier["reached"], xavier["seeds"]) == (15.0, 0.0, 2, 2)
    assert (late["steps"], late["steps_sd"], late["faster_than_xavier"]) == (35.0, round(50**0.5, 1), 1.0)
    assert (dwp["steps"], dwp["faster_than_xavier"], dwp["faster_than_xavier_sd"]) == (12.5, 1.25, 0.35)
    assert (never["steps"], never["steps_sd"], never["reached"], never["faster_than_xavier"]) == ("", "", 1, "")
    assert {row["faster_than_kaiming"] for row in table} == {""}
    assert [row["paper_steps"] for row in table] == [50.0, 90.0, 20.0, ""]
    assert [row["paper_faster_than_xavier"] for row in table] == [1.0, 1.0, 2.5, ""]
    record = out / "steps" / "record"
    assert {path.name for path in record.iterdir()} == {"made_up.csv", "made_up_runs.csv", "made_up.png"}
    with (record / "made_up_runs.csv").open(newline="") as file:
        flat = {(row["init"], int(row["seed"]), float(row["level"])): row["steps"] for row in csv.DictReader(file)}
    assert flat[XAVIER, 1, 80.0] == "30.0" and flat[DWP, 0, 80.0] == "20.0" and flat[DWP, 1, 80.0] == ""


def test_a_level_that_is_reached_exactly_counts(out: Path) -> None:
    found = replace(STAGE, levels=(65.1,)).run(out / "steps", Context(out))["table"]
    lines = (out / "runs" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line)[1] for line in lines]  # without their checksums
    for row in rows:
        row["accuracy"][-1] = 65.1
        row["accuracy"][:-1] = [0.0 for _ in row["accuracy"][:-1]]
    (out / "runs" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exact = replace(STAGE, levels=(65.1,)).run(out / "steps", Context(out))["table"]
    assert [row["reached"] for row in exact] == [row["seeds"] for row in found]


def test_one_seed_has_no_spread(out: Path) -> None:
    lines = (out / "runs" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "runs" / "metrics.jsonl").write_text("".join(line for line in lines if '"seed": 0' in line))
    for row in STAGE.run(out / "steps", Context(out))["table"]:
        assert row["steps_sd"] == row["faster_than_xavier_sd"] == row["paper_steps"] == "" and row["steps"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"needs": ("runs", "runs")}, "needs names the one stage with the runs; got 2"),
        ({"measure": "loss"}, "measure must be one of accuracy, elbo; got 'loss'"),
        ({"measure": "elbo"}, "the runs of runs have no 'elbo'; they have accuracy"),
        ({"figure": "4b"}, "figure must be one of fig4a, fig4b, fig4c, or empty; got '4b'"),
        ({"levels": ()}, r"levels must rise, each once; got \(\)"),
        ({"levels": (2.0, 1.0)}, r"levels must rise, each once; got \(2.0, 1.0\)"),
    ],
)
def test_helpful_errors(settings: dict[str, Any], message: str, out: Path) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STAGE, **settings).run(out / "steps", Context(out))
