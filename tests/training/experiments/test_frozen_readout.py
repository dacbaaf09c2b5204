import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dwp_init import load_prior
from training.engine import ledger
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.frozen_readout import (
    KEY_FILTER_BANK,
    NOISE_BANK,
    PRIOR_BANK,
    SCATTERING,
    FrozenBank,
    FrozenReadout,
    by_evidence,
    frozen_bank,
    readout_table,
)
from training.images.sets import load_images

SMALL = FrozenReadout(filters=((4,), (3, 5)), grids=((4,), (2, 1)), sizes=(10, 20), seeds=2)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Synthetic images that differ by class."""
    images = {split: load_images("mnist", split, root=tmp_path, synthetic=True) for split in ("train", "test")}
    monkeypatch.setattr(Context, "images", lambda context, name, split: images[split])


def pictures(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_responses_have_unit_strength_and_a_threshold() -> None:
    """Both signs go on: without a threshold their squares add up to 1 in the mean, beyond it none is below 0."""
    for filters in ((8,), (4, 8)):
        bank = frozen_bank((NOISE_BANK, filters, 0.0, (4,)), 0, pictures())
        last = bank._split(pictures(), len(filters) - 1)
        assert last.shape[1] == 2 * filters[-1] and (last >= 0).all()
        assert 2 * last.square().mean().item() == pytest.approx(1, rel=1e-4)
    open_, shut = (frozen_bank((NOISE_BANK, (8,), t, (4,)), 0, pictures()) for t in (0.0, 0.5))
    expected = (open_._split(pictures(), 0) - 0.5).clamp_min(0)
    torch.testing.assert_close(shut._split(pictures(), 0), expected)


def test_features_are_averages_over_cells() -> None:
    bank = frozen_bank((PRIOR_BANK, (4,), 0.0, (2, 1)), 0, pictures())
    found, last = bank(pictures()), bank._split(pictures(), 0)
    assert found.shape == (6, 8 * 5)
    torch.testing.assert_close(found[:, -8:], last.mean((2, 3)))
    torch.testing.assert_close(found[:, 0], last[:, 0, :11, :11].mean((1, 2)))


def test_kernels_come_from_their_source() -> None:
    """Those of the prior are smooth, those of noise are not, and the key filters are draws of their prior."""

    def roughness(source: str) -> float:
        weight = frozen_bank((source, (64,), 0.0, (4,)), 0, pictures()).layers[0].weight
        return ((weight[..., 1:] - weight[..., :-1]).square().mean() / weight.square().mean()).item()

    assert roughness(NOISE_BANK) == pytest.approx(2, abs=0.2) and roughness(PRIOR_BANK) < 1.5
    drawn = frozen_bank((KEY_FILTER_BANK, (5,), 0.0, (4,)), 0, pictures()).layers[0].weight
    scale = drawn.square().mean((1, 2, 3), keepdim=True).sqrt()
    assert load_prior("natural-dw7x7").log_prob(drawn / scale * 0.1).shape == (5,)
    other = frozen_bank((NOISE_BANK, (64,), 0.0, (4,)), 1, pictures()).layers[0].weight
    assert not torch.equal(other, frozen_bank((NOISE_BANK, (64,), 0.0, (4,)), 0, pictures()).layers[0].weight)


def test_the_tables(data: None, tmp_path: Path) -> None:
    folder = run_stages({"frozen": SMALL}, Context(tmp_path))["frozen"]
    with (folder / "record" / "frozen_readout_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    banks = SMALL.banks()
    assert len(banks) == 2 * 2 * 2 + 2  # the key filters in one layer alone
    assert len(rows) == 2 * 2 * (len(banks) + 3)
    table = read_done(folder)["table"]
    for row in table:
        own = [one for one in rows if all(str(row[key]) == one[key] for key in ("filters", "grids", "size", "source"))]
        assert len(own) == 2 and row["splits"] == 2
        assert row["accuracy"] == pytest.approx(sum(float(one["accuracy"]) for one in own) / 2, abs=1e-3)
        noise = [
            one
            for one in table
            if one["source"] == NOISE_BANK and all(one[key] == row[key] for key in ("filters", "grids", "size"))
        ]
        assert row["over_noise"] == pytest.approx(row["accuracy"] - noise[0]["accuracy"], abs=2e-3)
    chosen = {row["source"]: row for row in table if row["filters"] == "by evidence"}
    assert set(chosen) == {NOISE_BANK, PRIOR_BANK, KEY_FILTER_BANK}


def test_images_that_are_alike_by_class_are_read_out(data: None, tmp_path: Path) -> None:
    """Far above chance."""
    table = read_done(run_stages({"frozen": SMALL}, Context(tmp_path))["frozen"])["table"]
    assert max(row["accuracy"] for row in table if row["size"] == 20) > 50


def test_runs_of_record_count_on_another_machine(
    data: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, stages = tmp_path / "results", {"frozen": SMALL}
    monkeypatch.setattr(ledger, "RESULTS", results)
    run_stages(stages, Context(tmp_path / "one"), results)
    monkeypatch.setattr(FrozenReadout, "measure", lambda *_: pytest.fail("it was measured again"))
    again = run_stages(stages, Context(tmp_path / "two", from_record=True))["frozen"]
    files = sorted(path.name for path in results.iterdir())
    assert files == ["frozen_readout.csv", "frozen_readout_runs.csv", "frozen_runs.jsonl"]
    assert all((again / "record" / name).read_bytes() == (results / name).read_bytes() for name in files)
    assert "runs are taken from the results of record" in capsys.readouterr().out
    monkeypatch.setattr(FrozenReadout, "edition", 2)
    with pytest.raises(ValueError, match=r"(\d+) of the \1 runs in .* were made otherwise than they would be now"):
        run_stages(stages, Context(tmp_path / "three", from_record=True))


def test_a_result_does_not_depend_on_the_other_sizes(data: None, tmp_path: Path) -> None:
    def runs(*sizes: int) -> list[dict[str, str]]:
        stage = replace(SMALL, sizes=sizes, thresholds=(0.5,))
        folder = run_stages({"frozen": stage}, Context(tmp_path / str(sizes)))["frozen"]
        with (folder / "record" / "frozen_readout_runs.csv").open() as file:
            return [row for row in csv.DictReader(file) if row["size"] == "10"]

    assert runs(10) == runs(10, 20)


def row(split: int, filters: str, accuracy: float, evidence: float, source: str = NOISE_BANK) -> dict[str, Any]:
    row = {"split": split, "source": source, "filters": filters, "threshold": 0.0, "grids": "4", "size": 10}
    return row | {"features": 8, "accuracy": accuracy, "log_evidence": evidence}


def test_scattering_is_read_out_in_the_same_table(data: None, tmp_path: Path) -> None:
    pytest.importorskip("kymatio", reason="needs the rivals extra")
    small = replace(SMALL, sources=(NOISE_BANK,), filters=((4,),), scattering=((3, 2), (2, 2)))
    table = read_done(run_stages({"frozen": small}, Context(tmp_path))["frozen"])["table"]
    wavelets = [one for one in table if one["source"] == SCATTERING and one["size"] == 20]
    assert [one["filters"] for one in wavelets] == ["J=3 L=2", "J=2 L=2", "by evidence"]
    assert [one["over_noise"] for one in wavelets[:2]] == ["", ""] and wavelets[2]["over_scattering"] == 0.0
    noise = next(one for one in table if one["source"] == NOISE_BANK and one["size"] == 20)
    lead = noise["accuracy"] - wavelets[2]["accuracy"]
    assert noise["over_scattering"] == pytest.approx(lead, abs=2e-3) and wavelets[2]["accuracy"] > 30


def test_the_bank_by_evidence_is_chosen_in_each_split() -> None:
    rows = [row(0, "4", 50.0, 1.0), row(0, "8", 40.0, 2.0), row(1, "4", 60.0, 3.0), row(1, "8", 70.0, 2.0)]
    assert [(one["split"], one["accuracy"], one["filters"]) for one in by_evidence(rows)] == [
        (0, 40.0, "by evidence"),
        (1, 60.0, "by evidence"),
    ]


def test_differences_are_paired() -> None:
    rows = [
        row(0, "4", 50.0, 0.0),
        row(1, "4", 70.0, 0.0),
        row(1, "4", 73.0, 0.0, PRIOR_BANK),
        row(0, "4", 51.0, 0.0, PRIOR_BANK),
    ]
    noise, prior = readout_table(rows)
    assert (noise["over_noise"], prior["over_noise"], prior["accuracy"]) == (0.0, 2.0, 62.0)
    assert prior["over_noise_half_width"] == pytest.approx(12.706 * 2**0.5 / 2**0.5, abs=0.01)
    assert readout_table(rows[2:])[0]["over_noise"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ("wavelets",)}, r"sources must be some of white noise, .*, each once; got \('wavelets',\)"),
        ({"filters": ((1, 2, 3),)}, r"filters must be numbers of one or two layers.*; got \(\(1, 2, 3\),\)"),
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"sizes": (15,)}, "a stratified set must have a multiple of 10 images"),
    ],
)
def test_helpful_errors(data: None, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages({"frozen": replace(SMALL, **change)}, Context(tmp_path))


def test_a_bank_is_a_module() -> None:
    assert FrozenBank((4, 5), 0.5, (2,))(pictures(2)).shape == (2, 10 * 4)
