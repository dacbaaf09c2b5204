"""Kernels and their mirror images: what is learned of few stems should not depend on left and right, or on the sign."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.records import read_done
from training.engine.stage import Context, Stage
from training.kernels.kernelset import KernelSet


@dataclass(frozen=True)
class MirroredKernels(Stage):
    """Adds to the kernels to fit their mirror images from left to right and from top to bottom, and all negatives.

    Args:
        needs: The stage with the kernels, of two axes. Its kernels for validation and test stay as they are.
    """

    needs: tuple[str, ...] = ("kernels",)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        before = context.out / self.needs[0]
        kernels, done = KernelSet.load(before), read_done(before)
        more = KernelSet(mirrored(kernels.train), kernels.validation, kernels.test, kernels.test_network)
        more.save(folder)
        return {
            "kernels": more.counts(),
            "kept": done["kept"],
            "source": done["source"] | {"mirrored": True},
        }


def mirrored(kernels: Tensor) -> Tensor:
    """Returns kernels ``(n, c, k, k)`` with their mirror images and the negatives of all, ``(8 n, c, k, k)``."""
    for axis in (2, 3):
        kernels = torch.cat([kernels, kernels.flip(axis)])
    return torch.cat([kernels, -kernels])
