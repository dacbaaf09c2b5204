"""The functions of ``torch.linalg`` that priors need, with the types that its stubs lack."""

from typing import Any

import torch
from torch import Tensor

_linalg: Any = torch.linalg


def cholesky(matrix: Tensor) -> Tensor:
    """Returns the lower Cholesky factor of a symmetric positive definite matrix; raises if it is not."""
    factor: Tensor = _linalg.cholesky(matrix)
    return factor


def cholesky_or_none(matrix: Tensor) -> Tensor | None:
    """Returns the lower Cholesky factor of a symmetric matrix, or None if it is not positive definite."""
    factor: Tensor
    failed: Tensor
    factor, failed = _linalg.cholesky_ex(matrix)
    return None if failed.item() else factor


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eigenvalues of a symmetric matrix, ascending, and its eigenvectors in columns."""
    values: Tensor
    vectors: Tensor
    values, vectors = _linalg.eigh(matrix)
    return values, vectors


def solve_lower(tril: Tensor, right: Tensor) -> Tensor:
    """Returns the solution x of ``tril x = right`` for a lower triangular matrix, or a batch of them."""
    solution: Tensor = _linalg.solve_triangular(tril, right, upper=False)
    return solution
