"""Orthogonal output channels: the orthogonal channels nearest to independent draws."""

import math
from typing import cast

import torch
from torch import Tensor

from dwp_init.split import split

AT_ONCE = 64
"""Output channels that are made orthogonal at once."""
SPAN = 1024
"""Output channels that are orthogonal to each other; with it the cost grows in proportion to the weights."""
SHARE = 0.85
"""Share of the squares of the kernels in the components in which groups of more than ``AT_ONCE`` rows change."""
_SAMPLE = 2**13  # kernels from which the components are estimated
_PART = 2**22  # weights of small groups that are changed at a time
_NOTHING = 1e-6  # share of the first component's square below which a component counts as none
_WIDE = 36  # numbers in a row of a fast matrix product


def orthogonal_channels(kernels: Tensor, groups: int, inputs: int) -> Tensor:
    """Makes the output channels of each group orthogonal, with little change to the kernels, in place.

    The kernels of a group form a matrix of shape ``(out, in · k · k)``, with one row for each output channel. First
    the mean of each row is subtracted, because independent kernels whose means are not zero make all channels behind
    a ReLU alike. Then U S Vᵀ, the singular value decomposition, is replaced by U Vᵀ, the nearest matrix with
    orthonormal rows. If the rank of the matrix is lower than its number of rows, U Vᵀ spans the same subspace.

    A group of more than ``AT_ONCE`` rows takes this ``AT_ONCE`` rows at a time, each block orthogonal to those
    before it, up to ``SPAN`` rows. There only the strongest principal components of the kernels change, those with
    ``SHARE`` of their squares: these decide how much channels have in common, and the fine rest stays as it was drawn.

    Two cases differ. If a group has at least as many rows as columns, rows without means cannot all be orthogonal, and
    only the means are subtracted. With one input channel per group, the rows are scaled to the same norm instead.

    Args:
        kernels: Kernels of shape ``(n, c, *size)``, in float32, contiguous, each from c input channels to one output
            channel. Kernels of the same output channel are adjacent, and so are those of the same group.
        groups: Number of groups.
        inputs: Number of input channels of a group.

    Returns:
        The kernels, of arbitrary scale.
    """
    size = kernels.shape[2:].numel()
    rows = kernels.reshape(groups, -1, inputs * size)
    outputs, taps = rows.shape[1:]
    rows -= rows.mean(2, keepdim=True)
    if inputs == 1:
        norms = cast(Tensor, torch.linalg.vector_norm(rows, dim=2, keepdim=True))
        rows /= norms.clamp_min_(1e-12)
    elif outputs < taps:
        for part in split(rows, 1 if outputs > AT_ONCE else max(_PART // (outputs * taps), 1)):
            if outputs > AT_ONCE:
                _orthogonalize_blocks_(part[0], size)
            else:
                part.copy_(_nearest_orthonormal(part))
    return rows.view(kernels.shape)


def _orthogonalize_blocks_(rows: Tensor, size: int) -> None:
    """Makes rows ``(out, in · k · k)`` orthogonal block by block, in the leading components of their kernels."""
    inputs = rows.shape[1] // size
    sample = rows[: max(_SAMPLE // inputs, 1)].reshape(-1, size)
    leading, square = _leading(sample, room=2 * min(len(rows), SPAN) / inputs)
    scale, dims = math.sqrt(inputs * square), inputs * leading.shape[1]
    several = math.gcd(inputs, max(_WIDE // size, 1))
    basis = cast(Tensor, torch.block_diag(*[leading] * several))
    done, filled = rows.new_empty(max(min(len(rows), SPAN, dims // 2), 1), dims), 0
    for block in split(rows, min(AT_ONCE, len(done))):
        filled = filled if filled + len(block) <= len(done) else 0
        before, after = done[:filled], done[filled : filled + len(block)]
        own = (block.view(-1, len(basis)) @ basis).view(len(block), dims)
        after.copy_(_nearest_orthonormal(torch.addmm(own, own @ before.mT, before, alpha=-1)[None])[0])
        change = torch.sub(after * scale, own).view(-1, basis.shape[1])
        block.view(-1, len(basis)).addmm_(change, basis.mT)
        filled += len(block)


def _leading(kernels: Tensor, room: float) -> tuple[Tensor, float]:
    """Returns the leading principal components of kernels ``(n, d)`` as columns, and the mean square in them.

    They hold ``SHARE`` of the squares, and are at least ``room`` components, but none in which the kernels are 0.
    """
    moments = (kernels.mT @ kernels / len(kernels)).to("cpu", torch.float64)
    values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(moments))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    total = values.cumsum(0)
    enough = max(int((total < SHARE * total[-1]).sum()) + 1, math.ceil(room))
    count = max(min(enough, int((values > _NOTHING * values[0]).sum())), 1)
    return vectors[:, :count].to(kernels), total[count - 1].item()


def _nearest_orthonormal(rows: Tensor) -> Tensor:
    """Returns U Vᵀ of wide matrices U S Vᵀ, ``(b, rows, columns)``, by way of their Gram matrices."""
    exact = rows.cpu() if rows.device.type == "mps" else rows  # MPS has neither eigh nor float64
    values, vectors = _eigen(exact)
    if not (values[:, 0] > 1e-2 * values[:, -1]).all():  # too ill-conditioned for float32
        exact = exact.double()
        values, vectors = _eigen(exact)
    noise = (rows.shape[2] * torch.finfo(torch.float32).eps) ** 2 * values[:, -1:]  # rounding errors of float32 draws
    inverse_root = (vectors * values.rsqrt().where(values > noise, 0.0)[:, None, :]) @ vectors.mT
    return (inverse_root @ exact).to(rows)


def _eigen(rows: Tensor) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], torch.linalg.eigh(rows @ rows.mT))
