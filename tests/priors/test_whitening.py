"""Whitening against closed forms."""

import pytest
import torch

from dwp_init.priors.whitening import RasterWhitening, Whitening
from tests.priors.families import correlated, seeded


@pytest.mark.parametrize("kind", [Whitening, RasterWhitening])
def test_whitening_round_trip_and_log_det(kind):
    whitening = kind(9).double()
    x = correlated(300, 9).double()
    torch.testing.assert_close(whitening(x), x)  # the identity at first
    whitening.fit_(x)
    white = whitening(x)
    torch.testing.assert_close(whitening.inverse(white), x)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(9).double())
    jacobian = torch.autograd.functional.jacobian(lambda u: whitening.inverse(u[None])[0], white[0])
    torch.testing.assert_close(whitening.log_det(), torch.linalg.slogdet(jacobian).logabsdet)


def test_whitening_floors_directions_without_spread():
    x = torch.randn(100, 1, generator=seeded()) * torch.tensor([1.0, 2.0, 0.0])
    scale = Whitening(3).fit_(x, min_scale=0.01).scale
    torch.testing.assert_close(scale.min(), 0.01 * scale.max())
    assert Whitening(1).fit_(x[:, :1]).basis.shape == (1, 1)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (torch.zeros(1, 4), "at least 2 kernels; got 1"),
        (torch.full((7, 4), 0.1), "the 7 kernels are all equal"),
        (torch.tensor([[0.0, torch.nan], [torch.inf, 1.0], [0.0, 1.0]]), "2 of 3 kernels hold NaN or infinity"),
    ],
)
def test_whitening_errors(kernels, message):
    with pytest.raises(ValueError, match=message):
        Whitening(kernels.shape[1]).fit_(kernels)
