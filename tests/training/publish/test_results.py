from pathlib import Path

import pytest

from training.publish import results, templates


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
    (tmp_path / "fig4b.csv").write_text("init,level,steps,seeds\nXavier,92.0,40,2\n")
    runs = [("Xavier", 0, 40), ("Xavier", 1, 44), ("dwp", 0, 6), ("dwp", 1, 8), ("late", 0, 90), ("late", 1, "")]
    runs += [("early", 0, 5), ("early", 1, 7)]  # reached when it was first looked at, so that there is no difference
    lines = [f"{init},{seed},92.0,{steps}" for init, seed, steps in runs]
    (tmp_path / "fig4b_runs.csv").write_text("\n".join(["init,seed,level,steps", *lines]))
    (tmp_path / "fig4b_curves.csv").write_text("init,step\ndwp,10\ndwp,5\n")
    (figure,) = results.figures().values()
    assert figure.rows == {"Xavier": {"92.0": {"init": "Xavier", "level": "92.0", "steps": "40", "seeds": "2"}}}
    assert figure.seeds == 2 and figure.first == {("early", "92.0")}
    assert list(figure.leads) == [("dwp", "92.0")] and figure.leads["dwp", "92.0"].mean == -35


def test_effects_have_the_leads_of_their_runs() -> None:
    for row in results.effects()["dwp"].values():
        for label in ("kaiming", "learned"):
            assert row[label].mean == pytest.approx(float(row[f"over_{label}"]), abs=1e-3) and row[label].n == 8
            width = float(templates.FILTERS["half_width"](row[f"over_{label}_sd"], row["seeds"]))
            assert row[label].half_width == pytest.approx(width, abs=2e-3)


def test_the_first_benchmark_has_variants_of_its_networks() -> None:
    every, few = results.first_benchmarks(), results.first_benchmarks(variants=False)
    assert len(every) == 10 and len(few) == 6 and few.items() <= every.items()
    assert every["resnet"]["Kaiming"]["200"]["accuracy"] == "39.82"


def test_a_missing_result_names_the_list_of_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m training list"):
        results.read_record("decoding")
