import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dwp_init.bayes.gap import LayerGap
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments import gap
from training.experiments.few_labels import DWP_FIXED, DWP_PRIOR, DWP_SEMI_IMPLICIT
from training.experiments.gap import Gap
from training.images.sets import Images

SMALL = Gap(filters=(2, 3), size=20, splits=2, steps=3, batch_size=10, subset=4, samples=12, kernels=3)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(256, (60, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr(Context, "images", lambda *_: Images(images, torch.arange(60) % 10, {}))


def test_the_table(data: None, tmp_path: Path) -> None:
    """Layers add up to the bound, with the data's part; each run is resumed by row."""
    folder = run_stages({"table1_gap": SMALL}, Context(tmp_path))["table1_gap"]
    with (folder / "record" / "table1_gap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["prior"], row["layer"]) for row in rows] == [
        (prior, layer) for prior in (DWP_PRIOR, DWP_FIXED) for layer in ("features.conv1", "features.conv2", "bound")
    ]
    for first, second, bound in (rows[:3], rows[3:]):
        assert (first["kernels"], second["kernels"], bound["kernels"]) == ("2", "6", "8")
        assert float(bound["gap"]) == pytest.approx(float(first["gap"]) + float(second["gap"]), abs=2)
        assert float(bound["gap"]) == pytest.approx(float(bound["iwae"]) - float(bound["auxiliary"]), abs=2)
        assert float(bound["gap_per_kernel"]) == pytest.approx(float(bound["gap"]) / 8, abs=0.2)
        assert float(bound["auxiliary"]) < float(first["auxiliary"]) + float(second["auxiliary"])
    assert len(read_done(folder)["table"]) == 6
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 4
    whole = (folder / "record" / "table1_gap.csv").read_bytes()
    (folder / "metrics.jsonl").write_text("".join(lines[:1]) + lines[1][:20])
    (folder / "done.json").unlink()
    run_stages({"table1_gap": SMALL}, Context(tmp_path))
    assert (folder / "record" / "table1_gap.csv").read_bytes() == whole


def test_the_layer_of_a_row() -> None:
    part = LayerGap("conv", torch.tensor([1.0, 3.0]), torch.tensor([2.0, 6.0]), torch.zeros(2), torch.zeros(2), 8)
    row = gap.layer_row(part)
    assert (row["auxiliary"], row["iwae"], row["blind"], row["kernels"], row["looked_at"]) == (2, 4, 0, 8, 2)
    assert row["error"] == pytest.approx(1.0)


def test_gaps_by_draws(data: None, tmp_path: Path) -> None:
    stage = replace(SMALL, name="sivi", priors=(DWP_PRIOR, DWP_SEMI_IMPLICIT), draws=(1, 30))
    folder = run_stages({"sivi": stage}, Context(tmp_path))["sivi"]
    with (folder / "record" / "sivi_draws.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trained_by"], row["latents"], row["draws"]) for row in rows] == list(
        itertools.product((DWP_PRIOR, DWP_SEMI_IMPLICIT), ("encoder", "prior"), ("1", "30"))
    )
    for one, many in zip(rows[::2], rows[1::2], strict=True):
        assert float(many["gap_per_kernel"]) < float(one["gap_per_kernel"])


def test_the_table_of_draws() -> None:
    """Layers count by their kernels: (3 · 2 + 1 · 6) / 4 and (3 · 1 + 1 · 1) / 4 nats per kernel."""
    layers = [
        {"kernels": kernels, "iwae": 0.0, "auxiliary": -auxiliary, "semi_implicit": {"encoder 5": -1.0}}
        for kernels, auxiliary in ((3, 2.0), (1, 6.0))
    ]
    (row,) = gap.draws_table([{"prior": DWP_PRIOR, "split": 0, "layers": layers}])
    assert (row["latents"], row["draws"], row["gap_per_kernel"], row["splits"]) == ("encoder", 5, 1.0, 1)
    assert row["share_of_algorithm_1"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"priors": ("Gaussian",)},
            r"priors must be some of dwp, dwp-fixed, dwp-semi-implicit, each once; got \('Gaussian',\)",
        ),
        ({"priors": (DWP_PRIOR, DWP_PRIOR)}, "priors must be some of .*, each once"),
        ({"priors": ()}, "priors must be some of"),
        ({"splits": 0}, "splits must be 1 or more; got 0"),
        ({"samples": 0}, "samples must be 1 or more; got 0"),
    ],
)
def test_helpful_errors(data: None, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages({"table1_gap": replace(SMALL, **change)}, Context(tmp_path))
