from pathlib import Path

import pytest

from training.engine.records import (
    RESULTS,
    ROOT,
    load_checkpoint,
    print_table,
    read_metrics,
    read_table,
    record_metrics,
    save_checkpoint,
    write_table,
)


def test_metrics_survive_a_line_cut_short(tmp_path: Path) -> None:
    record_metrics(tmp_path, step=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    record_metrics(tmp_path, step=3)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_broken_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"epoch": 3})
    assert load_checkpoint(tmp_path / "a.pt") == {"epoch": 3}
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:50])
    with pytest.raises(ValueError, match="is not a complete checkpoint; remove it to start that part again"):
        load_checkpoint(tmp_path / "a.pt")


def test_tables_are_read_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"init": "dwp, 7×7", "accuracy": 97.5, "sd": ""}, {"init": "b", "accuracy": 8.25, "sd": 0.5}]
    write_table(tmp_path / "record" / "a.csv", rows)
    assert (tmp_path / "record" / "a.csv").read_bytes() == 'init,accuracy,sd\n"dwp, 7×7",97.5,\nb,8.25,0.5\n'.encode()
    assert read_table(tmp_path / "record" / "a.csv")[1] == {"init": "b", "accuracy": "8.25", "sd": "0.5"}
    print_table(rows)
    assert capsys.readouterr().out == "  init      accuracy  sd\n  dwp, 7×7  97.5\n  b         8.25      0.5\n"


def test_a_missing_table_names_the_recipes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*none\.csv; run the recipe that records it"):
        read_table(tmp_path / "none.csv")


def test_the_results_of_record_are_in_the_clone() -> None:
    assert (ROOT / "pyproject.toml").exists() and (RESULTS / "converge_mnist.csv").exists()
