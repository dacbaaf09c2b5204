"""Spectral norm: the singular vectors by which ``spectral_norm`` estimates the norm of a weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 15
"""Steps of the power method, as many as the constructor of ``torch.nn.utils.parametrizations.spectral_norm`` takes."""


@torch.no_grad()
def singular_vectors(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Estimates the first left and right singular vectors of a weight by the power method.

    The start is the same every time, so that the same weight has the same estimate.

    Args:
        weight: Weight of two or more dimensions.
        dim: Dimension of the rows of its matrix; all other dimensions make up the columns.

    Returns:
        u ``(rows,)`` and v ``(columns,)`` of norm 1, in the weight's dtype; uᵀ W v is the estimate of the norm.
    """
    matrix = weight.movedim(dim, 0).flatten(1).float()
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    u, v = torch.empty(0), start.to(matrix)
    for _ in range(STEPS):
        u = F.normalize(matrix @ v, dim=0)
        v = F.normalize(matrix.mT @ u, dim=0)
    return u.to(weight), v.to(weight)
