from pathlib import Path
from typing import Any

import pytest

from dwp_init.storage import write_json
from training.engine.stage import Context
from training.experiments.classify import nearest
from training.experiments.few_labels_choice import ChooseSettings, best_settings


def row(size: int, prior: str, steps: int, temperature: float, accuracy: float, init: str = "dwp") -> dict[str, Any]:
    row = {"size": size, "prior": prior, "init": init, "steps": steps, "temperature": temperature}
    return row | {"accuracy": accuracy, "accuracy_sd": 1.0, "nll": 0.5, "ece": 3.0, "splits": 3}


def tried(out: Path, name: str, hold_out: int, *rows: dict[str, Any]) -> str:
    """Makes the folder of a finished stage of runs."""
    (out / name).mkdir()
    write_json(out / name / "config.json", {"settings": {"hold_out": hold_out}})
    write_json(out / name / "done.json", {"table": list(rows)})
    return name


def test_the_best_of_each_prior_and_size() -> None:
    rows = [row(50, "dwp", 300, 1.0, 80.0), row(50, "dwp", 1000, 0.1, 79.0), row(100, "dwp", 300, 1.0, 85.0)]
    rows += [row(100, "dwp", 1000, 0.1, 86.0), row(50, "normal", 300, 1.0, 70.0)]
    assert best_settings(rows) == [rows[3], rows[0], rows[4]]


def test_of_equal_ones_the_nearest_to_bayes_rule() -> None:
    rows = [row(50, "dwp", 1000, 1.0, 80.0), row(50, "dwp", 300, 0.1, 80.0), row(50, "dwp", 300, 1.0, 80.0)]
    assert best_settings(rows) == [rows[2]] and best_settings(rows[:2]) == [rows[0]]


@pytest.mark.parametrize(("temperatures", "chosen"), [((), (1000, 0.1)), ((1.0,), (300, 1.0))])
def test_bayes_rule_may_be_asked_for(tmp_path: Path, temperatures: tuple[float, ...], chosen: Any) -> None:
    """Runs from other initialisations have no say."""
    warm = tried(tmp_path, "warm", 10, row(50, "dwp", 300, 1.0, 80.0), row(50, "dwp", 9, 1.0, 99.0, init="Xavier"))
    cold = tried(tmp_path, "cold", 10, row(50, "dwp", 1000, 0.1, 81.0))
    stage = ChooseSettings((warm, cold), "settings", temperatures)
    found = stage.run(tmp_path / "choice", Context(tmp_path))
    (best,) = found["chosen"]
    assert (best["steps"], best["temperature"]) == chosen
    assert [(each["steps"], each["chosen"]) for each in found["table"]] == [
        (steps, steps == chosen[0]) for steps in (300, 1000)
    ]
    assert (tmp_path / "choice" / "record" / "settings.csv").exists()


def test_helpful_errors(tmp_path: Path) -> None:
    tested = tried(tmp_path, "tested", 0, row(50, "dwp", 300, 1.0, 80.0))
    with pytest.raises(ValueError, match="tested was tested on test images; choices need hold_out"):
        ChooseSettings((tested,)).run(tmp_path / "a", Context(tmp_path))
    cold = tried(tmp_path, "cold", 10, row(50, "dwp", 300, 0.1, 80.0))
    with pytest.raises(ValueError, match=r"dwp has no run at a temperature of \(1.0,\); add one to needs"):
        ChooseSettings((cold,), temperatures=(1.0,)).run(tmp_path / "b", Context(tmp_path))


def test_the_nearest_number_of_labels() -> None:
    settings = {(size, "dwp"): {"steps": size} for size in (50, 200, 1000)}
    found = [nearest(settings, size, "dwp")["steps"] for size in (10, 50, 99, 100, 101, 200, 500, 5000)]
    assert found == [50, 50, 50, 50, 200, 200, 1000, 1000]
    assert nearest({}, 50, "dwp") == {}
    with pytest.raises(ValueError, match="no settings are chosen for normal; add it to the priors of the stages"):
        nearest(settings, 50, "normal")
