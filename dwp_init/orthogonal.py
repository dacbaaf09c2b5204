"""Orthogonal output channels: the orthogonal channels nearest to independent draws."""

from typing import cast

import torch
from torch import Tensor, nn


def orthogonal_channels(kernels: Tensor, groups: int, inputs: int) -> Tensor:
    """Makes the output channels of each group orthogonal, with as little change to the kernels as possible.

    The kernels of a group form a matrix of shape ``(out, in · k · k)``, with one row for each output channel. First
    the mean of each row is subtracted, because independent kernels whose means are not zero make all channels behind
    a ReLU alike. Then U S Vᵀ, the singular value decomposition, is replaced by U Vᵀ, the nearest matrix with
    orthonormal rows. If the rank of the matrix is lower than its number of rows, U Vᵀ spans the same subspace.

    Two cases differ. If a group has at least as many rows as columns, rows without means cannot all be orthogonal, and
    only the means are subtracted. With one input channel per group, the rows are scaled to the same norm instead.

    Args:
        kernels: Kernels of shape ``(n, c, k, k)``, each from c input channels to one output channel. Kernels of the
            same output channel are adjacent, and so are those of the same group.
        groups: Number of groups.
        inputs: Number of input channels of a group.

    Returns:
        Kernels of the same shape, dtype and device, of arbitrary scale.
    """
    taps = inputs * kernels.shape[2:].numel()
    device = "cpu" if kernels.device.type == "mps" else kernels.device  # MPS has no float64
    rows = kernels.reshape(groups, -1, taps).to(device, torch.float64)
    rows = rows - rows.mean(2, keepdim=True)
    if inputs == 1:
        rows = nn.functional.normalize(rows, dim=2)
    elif rows.shape[1] < taps:
        rows = _nearest_orthonormal(rows)
    return rows.reshape(kernels.shape).to(kernels)


def _nearest_orthonormal(rows: Tensor) -> Tensor:
    """Returns U Vᵀ of wide matrices U S Vᵀ, ``(b, rows, columns)``, by way of their Gram matrices."""
    values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(rows @ rows.mT))
    noise = (rows.shape[2] * torch.finfo(torch.float32).eps) ** 2 * values[..., -1:]  # rounding errors of float32 draws
    inverse_root = (vectors * values.rsqrt().where(values > noise, 0.0)[..., None, :]) @ vectors.mT
    return inverse_root @ rows
