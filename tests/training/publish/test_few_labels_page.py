from pathlib import Path

import pytest

from training.publish import results
from training.publish.few_labels_page import pairs, read_few_labels

DWP, OTHER, NORMAL, GAUSSIAN = (("dwp", "dwp"), ("standard-normal", "dwp"), ("normal", "dwp"), ("gaussian", "dwp"))
XAVIER = ("standard-normal", "Xavier")


def test_what_is_compared() -> None:
    assert pairs([DWP, OTHER, NORMAL, GAUSSIAN, XAVIER]) == [
        *((DWP, each) for each in (OTHER, NORMAL, GAUSSIAN)),
        (OTHER, XAVIER),
        (GAUSSIAN, NORMAL),
        (OTHER, NORMAL),
    ]


def test_runs_are_paired_by_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    points = {DWP: 4, OTHER: 2, NORMAL: 1, GAUSSIAN: 3}
    rows = ["size,prior,init,accuracy"] + [f"50,{prior},{init},9" for prior, init in points]
    runs = ["size,split,prior,init,kl,accuracy,nll,ece,ood_auroc"]
    for (prior, init), value in points.items():
        splits = [(split, value + 10 * split) for split in (0, 1)]
        for split, found in splits if prior == "dwp" else reversed(splits):
            runs.append(f'50,{split},{prior},{init},"[1.0, {found}.0]",{found},{-found},0,{found}')
    (tmp_path / "few.csv").write_text("\n".join(rows))
    (tmp_path / "few_runs.csv").write_text("\n".join(runs))
    found = read_few_labels("few")
    assert found.splits == 2 and found.rows[DWP]["50"]["accuracy"] == "9"
    assert found.leads["accuracy"][DWP, OTHER]["50"][:2] == (2, 0)
    assert found.leads["nll"][GAUSSIAN, NORMAL]["50"].mean == -2
    assert found.leads["accuracy"][DWP, NORMAL]["50"].differs and not found.leads["ece"][DWP, NORMAL]["50"].differs
    assert found.divergences[DWP] == {"50": 1 + 4 + 5}
    assert found.half_widths[DWP]["50"] == pytest.approx(12.7062 * 5, rel=1e-4)


def test_networks_without_a_prior_have_no_divergence() -> None:
    found = read_few_labels("fig2a_mnist_cold")
    assert found.splits == 5 and all(len(sizes) == 5 for sizes in found.divergences.values())
    warm = read_few_labels("fig2a_mnist")
    assert warm.rows.keys() - warm.divergences.keys() == {("deterministic", "dwp"), ("deterministic", "Xavier")}
