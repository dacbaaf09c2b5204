"""A kernel data set: the kernels of one layer in three parts, to fit, to choose and to test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from dwp_init.priors.base import KernelShape
from dwp_init.storage import write_bytes

KERNELS = "kernels.safetensors"
LABELS = "labels.safetensors"  # of a harvest: checkpoint, tensor and depth of each kernel
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class KernelSet:
    """The kernels of a data set.

    Args:
        train: Kernels to fit, ``(n, c, *size)``.
        validation: Kernels for model selection, of the same shape.
        test: Kernels for the reported figures, of the same shape.
        test_network: The network from which each test kernel comes, ``(n,)``; -1 where that is unknown.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    test_network: Tensor

    @property
    def kernel_shape(self) -> KernelShape:
        """``(c, *size)`` of one kernel."""
        return tuple(self.train.shape[1:])

    def save(self, folder: Path) -> None:
        """Writes the data set into a folder."""
        write_bytes(folder / KERNELS, self.packed())

    def packed(self) -> bytes:
        """Returns the content of the file."""
        return save({name: value.contiguous() for name, value in vars(self).items()})

    @classmethod
    def load(cls, folder: Path) -> "KernelSet":
        """Reads the data set in a folder."""
        return cls(**load_file(folder / KERNELS))

    @classmethod
    def together(cls, sets: Sequence["KernelSet"]) -> "KernelSet":
        """Joins the kernels of several layers of the same networks, part by part."""
        return cls(**{name: torch.cat([getattr(one, name) for one in sets]) for name in vars(sets[0])})

    def counts(self) -> dict[str, int]:
        """Returns the number of kernels in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}


def shuffled(n: int, seed: int) -> Tensor:
    """Returns the numbers from 0 to ``n - 1`` in random order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def norm_threshold(norms: Tensor, share: float) -> float:
    """Returns the norm below which kernels count as unused: a share of the 95 % quantile of all norms ``(n,)``."""
    return share * float(np.quantile(norms.numpy(), 0.95))
