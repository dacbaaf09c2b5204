import csv
from dataclasses import replace
from pathlib import Path

import pytest

from training.engine.records import read_done, write_table
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.benchmark_plateau import BenchmarkPlateau

SMALL = {"network": "resnet(blocks=1)", "filters": (4,), "hold_out": 10, "batch_size": 5, "steps": 4, "marks": 2}
PLATEAU = BenchmarkPlateau(name="long", of="short", **SMALL)


def of_task(folder: Path, trial: int) -> None:
    lr, decay = PLATEAU.settings[trial]
    row = {"start": "own", "lr": lr, "weight_decay": decay, "accuracy": 12.5, "log_loss": 2.5}
    write_table(folder / "short.csv", [row | {"start": "Kaiming"}, row])


def test_the_model_is_trained_longer_at_the_setting_of_the_task(
    data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.experiments.benchmark_plateau.RESULTS", tmp_path / "results")
    with pytest.raises(FileNotFoundError, match=r"short\.csv"):
        run_stages({"long": PLATEAU}, Context(tmp_path / "a"))
    of_task(tmp_path / "results", trial=1)
    found = {}
    for out, trial in (("a", 1), ("b", 3)):  # on record; in the same folder
        if out == "b":
            of_task(tmp_path / out / "short" / "record", trial)
        folder = run_stages({"long": PLATEAU}, Context(tmp_path / out))["long"]
        with (folder / "record" / "long.csv").open(newline="") as file:
            (found[out],) = csv.DictReader(file)
        assert float(found[out]["lr"]) == PLATEAU.settings[trial].rate
        assert (found[out]["task"], found[out]["steps"], found[out]["task_accuracy"]) == ("short", "4", "12.5")
    assert found["a"]["log_loss"] != found["b"]["log_loss"]


def test_it_is_trained_again_only_where_the_task_chooses_another_setting(
    data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    train_one = BenchmarkPlateau.train_one
    monkeypatch.setattr(
        BenchmarkPlateau, "train_one", lambda *given, **more: trained.append(given[4]) or train_one(*given, **more)
    )
    results, records = tmp_path / "results", {}
    monkeypatch.setattr("training.experiments.benchmark_plateau.RESULTS", results)
    for trial in (1, 3):
        of_task(results, trial)
        for out in ("a", "b"):  # once more in the same folder, and in another one from the record
            context = Context(tmp_path / out, from_record=True)
            for _ in range(2):
                run_stages({"long": PLATEAU}, context, results)
            summary = read_done(tmp_path / out / "long")["table"]
            records[trial, out] = (results / "long.csv").read_bytes(), summary
    assert trained == [1, 3] and records[1, "a"] == records[1, "b"] != records[3, "a"] == records[3, "b"]
    run_stages({"long": replace(PLATEAU, steps=5)}, Context(tmp_path / "c", from_record=True))
    assert trained == [1, 3, 3]


def test_a_task_without_runs_of_the_models_own_start_is_named(tmp_path: Path) -> None:
    of_task(tmp_path / "short" / "record", 0)
    stage = replace(PLATEAU, of="short")
    assert stage.own_of_task(Context(tmp_path))["start"] == "own"
    write_table(tmp_path / "short" / "record" / "short.csv", [{"start": "own", "lr": ""}])
    with pytest.raises(ValueError, match=r"short\.csv has no finished run of 'own'; run short first"):
        stage.own_of_task(Context(tmp_path))
