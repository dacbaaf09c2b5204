from pathlib import Path

import pytest

from training.publish import results


def test_rows_are_found_by_columns() -> None:
    rows = [{"a": a, "b": b, "n": str(n)} for n, (a, b) in enumerate([("x", "1"), ("y", "1"), ("x", "2"), ("x", "1")])]
    assert results.by(rows, "a") == {"x": rows[3], "y": rows[1]}
    assert results.by(rows, "a", "b") == {"x": {"1": rows[3], "2": rows[2]}, "y": {"1": rows[1]}}
    assert list(results.by(rows, ("b", "a"))) == [("1", "x"), ("1", "y"), ("2", "x")]


def test_the_priors_of_record_are_in_a_table_of_densities() -> None:
    sizes = {"notmnist-7x7": "7x7", "notmnist-5x5-h1": "5x5", "notmnist-7x7-flow": "7x7", "tinyimagenet-7x7": None}
    assert {name: results.size_of_record(name) for name in sizes} == sizes


def test_figures_are_those_that_are_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert results.figures() == {}
    (tmp_path / "fig4b.csv").write_text("init,level,steps\nXavier,92.0,40\n")
    assert results.figures() == {"fig4b": {"Xavier": {"92.0": {"init": "Xavier", "level": "92.0", "steps": "40"}}}}


def test_the_first_benchmark_has_variants_of_its_networks() -> None:
    every, few = results.first_benchmarks(), results.first_benchmarks(variants=False)
    assert len(every) == 10 and len(few) == 6 and few.items() <= every.items()
    assert every["resnet"]["Kaiming"]["200"]["accuracy"] == "39.82"


def test_a_missing_result_names_the_list_of_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m training list"):
        results.read_record("decoding")
