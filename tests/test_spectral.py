"""Singular vectors, against known ones."""

import pytest
import torch

from dwp_init.spectral import singular_vectors


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_of_a_weight_of_rank_one_are_its_factors(dim: int, dtype: torch.dtype) -> None:
    left, right = torch.tensor([0.6, -0.8]), torch.tensor([1.0, 2.0, -2.0, 0.0]) / 3
    matrix = (5 * left[:, None] * right).to(dtype)
    u, v = singular_vectors(matrix.view(2, 2, 2) if dim == 0 else matrix.view(2, 2, 2).transpose(0, 1), dim)
    assert u.dtype == v.dtype == dtype and torch.equal(u, singular_vectors(matrix, 0)[0])
    tolerance = {"rtol": 0, "atol": 1e-2 if dtype == torch.bfloat16 else 1e-6}
    torch.testing.assert_close(u.float() * u[0].sign(), left, **tolerance)
    torch.testing.assert_close(v.float() * v[0].sign(), right, **tolerance)
