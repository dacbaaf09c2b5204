from pathlib import Path

import torch

from training.kernels.kernelset import KERNELS, PARTS, KernelSet


def numbered(first: int, n: int) -> torch.Tensor:
    return torch.arange(first, first + n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 2, 3, 3)


def kernel_set(first: int = 0) -> KernelSet:
    return KernelSet(*(numbered(first + 10 * i, 2 + i) for i in range(3)), torch.arange(4))


def test_it_reads_back(tmp_path: Path) -> None:
    kernel_set().save(tmp_path)
    assert (tmp_path / KERNELS).read_bytes() == kernel_set().packed()
    loaded = KernelSet.load(tmp_path)
    assert all(torch.equal(value, getattr(loaded, name)) for name, value in vars(kernel_set()).items())


def test_counts_and_shape() -> None:
    assert kernel_set().counts() == dict(zip(PARTS, (2, 3, 4), strict=True))
    assert kernel_set().kernel_shape == (2, 3, 3)


def test_layers_are_joined_part_by_part() -> None:
    joined = KernelSet.together([kernel_set(), kernel_set(100)])
    assert joined.train[:, 0, 0, 0].tolist() == [0, 1, 100, 101]
    assert joined.counts() == dict(zip(PARTS, (4, 6, 8), strict=True)) and len(joined.test_network) == 8
