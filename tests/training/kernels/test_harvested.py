"""Harvests inside a recipe: hand-made state dicts, entered in a manifest."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.kernels.states import networks_in_a_manifest
from training.engine.run import run_stages
from training.engine.stage import Context, StageChangedError
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.kernels.groups import Settings
from training.kernels.harvest import harvest
from training.kernels.harvested import HarvestedKernels
from training.kernels.kernelset import KernelSet


def stage(manifest: Path, **settings: Any) -> HarvestedKernels:
    return HarvestedKernels(manifest=str(manifest), **{"kind": "depthwise", "size": (5, 5)} | settings)


def test_it_is_the_harvest_of_its_kind_and_size(tmp_path: Path) -> None:
    manifest = networks_in_a_manifest(tmp_path, trained_on="ImageNet", license="MIT")
    folder = run_stages({"kernels": stage(manifest, test=("net1*",))}, Context(out=tmp_path / "runs"))["kernels"]
    expected = harvest([str(manifest)], tmp_path / "out", Settings(test=("net1*",))).folders["depthwise-5x5"]
    done = json.loads((folder / "done.json").read_text())
    assert done["kernels"] == expected["kernels"] == {"train": 12, "validation": 12, "test": 12}
    assert done["source"] == expected["source"] | {"synthetic": False}
    assert done["source"]["dataset"] == "ImageNet" and done["source"]["held_out_families"]["test"] == [
        "net1.safetensors"
    ]
    for file in ("kernels.safetensors", "labels.safetensors", "labels.json"):
        assert (folder / file).read_bytes() == (tmp_path / "out" / "depthwise-5x5" / file).read_bytes()


def test_it_resumes_and_another_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest, context = networks_in_a_manifest(tmp_path), Context(out=tmp_path / "runs")
    for _ in range(2):
        run_stages({"kernels": stage(manifest)}, context)
    assert "kernels: finished earlier, reused" in capsys.readouterr().out
    networks_in_a_manifest(tmp_path, 4)
    with pytest.raises(StageChangedError, match=r"data\.manifest is '"):
        run_stages({"kernels": stage(manifest)}, context)


@pytest.mark.parametrize(("kind", "size", "shape"), [("depthwise", (5, 5), (1, 5, 5)), ("stem", (3, 3), (3, 3, 3))])
def test_a_trial_fetches_nothing(kind: str, size: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path) -> None:
    """Its checkpoints have the names of the manifest's entries, so that patterns of families match."""
    manifest = networks_in_a_manifest(tmp_path)
    for i in range(3):
        (tmp_path / f"net{i}.safetensors").unlink()
    stages = {
        "kernels": stage(manifest, kind=kind, size=size, test=("*net2*",)),
        "fit": FitByDepth(components=(2,), shrinkages=(100.0,), restarts=1),
    }
    folders = run_stages(stages, Context(out=tmp_path / "runs", smoke=True))
    kernels = KernelSet.load(folders["kernels"])
    assert kernels.kernel_shape == shape and min(kernels.counts().values()) >= 16
    assert load_file(folders["kernels"] / "labels.safetensors")["train.depth"].max() <= 1
    source = fitted_prior(folders["fit"]).details["source"]
    assert source["synthetic"] and source["held_out_families"]["test"] == ["synthetic/net2.safetensors.safetensors"]
    assert torch.cat([kernels.train, kernels.test]).square().mean().item() == pytest.approx(1, abs=0.05)


def test_a_kind_and_size_that_the_manifest_lacks(tmp_path: Path) -> None:
    """Stems of another number of channels are of a group of their own."""
    manifest = networks_in_a_manifest(tmp_path)
    context = Context(out=tmp_path / "runs")
    with pytest.raises(ValueError, match="there are fewer than 10 9×9 depthwise kernels to take; there are dense-3x3"):
        run_stages({"kernels": stage(manifest, size=(9, 9))}, context)
    for i in range(3):
        save_file({"stem.weight": torch.ones(16, 4, 7, 7) + i}, tmp_path / f"net{i}.safetensors")
    text = manifest.read_text().splitlines()
    digests = [hashlib.sha256((tmp_path / f"net{i}.safetensors").read_bytes()).hexdigest() for i in range(3)]
    lines = [f'sha256 = "{digests[i // 3]}"' if "sha256" in line else line for i, line in enumerate(text)]
    manifest.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"sources\.toml has no stem-7x7 kernels, but stem-7x7-c4; mend kind and size"):
        run_stages({"kernels": stage(manifest, kind="stem", size=(7, 7))}, context)


def test_a_disk_without_room_is_an_error_of_the_system(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            stage(Path("training/recipes/natural_sources.toml"))._synthetic(tmp_path / "synthetic")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "synthetic").iterdir())
