"""Images in place of data sets, learned kernels on disk, and a run that stops in the middle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.engine.run import run_stages
from training.engine.stage import Context, Stage
from training.images.sets import Images
from training.kernels.kernelset import KernelSet

MakeImages = Callable[..., Images]


@pytest.fixture(scope="session")
def make_images() -> MakeImages:
    """Makes random images of as many of each of ten classes."""

    def make(n: int, seed: int, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> Images:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)
        return Images(images, torch.arange(n) % classes, {"seed": seed})

    return make


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, make_images: MakeImages) -> dict[str, Images]:
    """40 images to train with and 30 for the test, in place of any data set; may be replaced."""
    data = {"train": make_images(40, 0), "test": make_images(30, 1)}
    monkeypatch.setattr(Context, "images", lambda context, name, split: data[split])
    return data


@pytest.fixture
def save_kernels() -> Callable[..., None]:
    """Saves a kernels stage's set of ``n`` random kernels."""

    def save(folder: Path, k: int, channels: int = 1, n: int = 50) -> None:
        folder.mkdir()
        kernels = 0.1 * torch.randn(n, channels, k, k, generator=torch.Generator().manual_seed(k))
        KernelSet(kernels, kernels.clone(), kernels.clone(), torch.zeros(n)).save(folder)

    return save


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage, int], tuple[list, list]]:
    """Runs a stage, cuts its rows after ``kept`` and runs it again; returns what was trained first and then."""

    def run(stage: Stage, kept: int) -> tuple[list, list]:
        trained: list[Any] = []
        train_one = type(stage).train_one
        monkeypatch.setattr(type(stage), "train_one", lambda *given: trained.append(given[2]) or train_one(*given))
        folder = run_stages({"runs": stage}, Context(tmp_path))["runs"]
        record = {path.name: path.read_bytes() for path in (folder / "record").iterdir()}
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:kept]) + lines[kept][:20])
        (folder / "done.json").unlink()
        first, trained[:] = list(trained), []
        run_stages({"runs": stage}, Context(tmp_path))
        assert (folder / "metrics.jsonl").read_text().splitlines(keepends=True)[: len(lines) + 1][:kept] == lines[:kept]
        assert {path.name: path.read_bytes() for path in (folder / "record").iterdir()} == record
        return first, trained

    return run
