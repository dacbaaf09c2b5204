"""Components of a mixture: how many kernels come from each, and that pairs of narrow rows are what single ones are."""

import pytest
import torch

from dwp_init.priors.components import FEW, Components, Multinomial
from tests.priors.families import seeded


@pytest.mark.parametrize("n", [100, 10_000])
def test_components_are_drawn_in_proportion(n):
    """The numbers of kernels are multinomial: mean n p, covariance n (diag(p) - p pᵀ), and their sum is n."""
    weight, source = torch.tensor([0.1, 0.0, 0.5, 0.05, 0.35]), seeded()
    counts = torch.stack([Multinomial(weight).draw(n, source) for _ in range(4000)]).double()
    assert (counts.sum(1) == n).all() and (counts[:, 1] == 0).all()
    torch.testing.assert_close(counts.mean(0) / n, weight.double(), rtol=0, atol=3 * 0.5 / (4000 * n) ** 0.5)
    expected = n * (weight.diag() - weight[:, None] * weight).double()
    torch.testing.assert_close(counts.T.cov(), expected, rtol=0, atol=0.03 * n * 0.25 * 2)


def test_rows_in_pairs_are_as_single_ones():
    weight, loc = torch.tensor([[0.2, 0.3], [0.1, 0.4]]), torch.randn(2, 9, generator=seeded())
    factor, white = torch.randn(2, 9, 9, generator=seeded(1)), torch.randn(FEW + 1, 9, generator=seeded(2))
    found = []
    for many in (False, True):
        out = torch.empty_like(white)
        Components(weight, (0.5, 2.0), loc, factor, many).draw(white.clone(), seeded(3), out)
        found.append(out)
    torch.testing.assert_close(found[0], found[1])
    first = loc[0] + 0.5 * white[0] @ factor[0].T
    torch.testing.assert_close(found[1][0], first)
