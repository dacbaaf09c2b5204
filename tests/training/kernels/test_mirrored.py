"""Kernels with their mirror images."""

from pathlib import Path

import torch

from tests.training.kernels.states import networks_in_a_manifest
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context
from training.kernels.harvested import HarvestedKernels
from training.kernels.kernelset import KernelSet
from training.kernels.mirrored import MirroredKernels, mirrored


def test_four_images_and_their_negatives() -> None:
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    images = [[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[2, 1], [4, 3]], [[4, 3], [2, 1]]]
    expected = torch.tensor([images, (-torch.tensor(images)).tolist()], dtype=torch.float32).flatten(0, 1)
    found = mirrored(kernel.expand(1, 3, 2, 2))
    assert found.shape == (8, 3, 2, 2)
    assert torch.equal(found, expected[:, None].expand(-1, 3, -1, -1))


def test_only_kernels_to_fit_are_mirrored(tmp_path: Path) -> None:
    manifest = networks_in_a_manifest(tmp_path)
    stages = {
        "kernels": HarvestedKernels(manifest=str(manifest), kind="stem", size=(7, 7)),
        "mirrored": MirroredKernels(),
    }
    folders = run_stages(stages, Context(out=tmp_path / "runs"))
    before, after = (KernelSet.load(folders[name]) for name in stages)
    assert torch.equal(after.train, mirrored(before.train))
    assert torch.equal(after.validation, before.validation) and torch.equal(after.test, before.test)
    done = read_done(folders["mirrored"])
    assert done["kernels"] == {"train": 128, "validation": 16, "test": 16}
    assert done["source"] == read_done(folders["kernels"])["source"] | {"mirrored": True}
