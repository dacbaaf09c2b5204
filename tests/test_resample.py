"""Kernels of one size from those of another: middle rows, and resampling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dwp_init import GaussianMixture, apply_
from dwp_init.resample import Fitting, fitting


@pytest.mark.parametrize(
    ("size", "wanted", "text"),
    [
        ((7, 7), (7, 7), ""),
        ((1, 7), (1, 7), ""),
        ((7, 7), (1, 7), "middle row of 7×7"),
        ((7, 7), (7, 1), "middle column of 7×7"),
        ((3, 7), (1, 7), "middle row of 3×7"),
        ((7, 7), (5, 5), "resized from 7×7"),
        ((7, 7), (1, 11), "resized from the middle row of 7×7"),
        ((1, 7), (1, 11), "resized from 1×7"),
        ((7,), (5,), "resized from length-7"),
        ((3, 3, 3), (5, 3, 3), "resized from 3×3×3"),
        ((3, 3, 3), (1, 3, 3), "middle slice of 3×3×3"),
        ((3, 3), (1, 3, 3), ""),
        ((3, 5), (3, 1, 7), "resized from 3×1×5"),
    ],
)
def test_what_is_done_with_kernels_of_another_size(size: tuple[int, ...], wanted: tuple[int, ...], text: str) -> None:
    found = fitting(size, wanted)
    assert found is not None and str(found) == text
    kernels = found(torch.randn(5, 2, *size))
    assert kernels.shape == (5, 2, *wanted)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((7, 7), (1, 1)), ((1, 7), (3, 7)), ((7,), (7, 7)), ((7, 7), (7,)), ((3, 3), (1, 1, 3)), ((3, 3), (3, 3, 3))],
)
def test_sizes_that_do_not_fit(size: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert fitting(size, wanted) is None


@pytest.mark.parametrize("wanted", [(13, 13), (3, 9), (2, 2)])
def test_planes_are_resampled_as_torch_resamples_images(wanted: tuple[int, int]) -> None:
    kernels = torch.randn(10, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    found = Fitting((7, 7), wanted)(kernels)
    expected = F.interpolate(kernels, wanted, mode="bilinear", antialias=True)
    torch.testing.assert_close(found / found.norm(), expected / expected.norm())
    assert found.square().mean().item() == pytest.approx(kernels.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("size", [(4,), (2, 4), (2, 3, 4)])
def test_resampling_is_separable_and_keeps_ramps(size: tuple[int, ...]) -> None:
    axes = [torch.arange(1.0, k + 1) for k in size]
    product = torch.ones(())
    for axis in axes:
        product = product[..., None] * axis
    found = Fitting(size, tuple(2 * k for k in size))(product[None, None])[0, 0]
    for axis in range(len(size)):
        row = found.movedim(axis, -1).flatten(0, -2)[0] if len(size) > 1 else found
        steps = row[1:-1].diff()  # the outermost values are clamped
        torch.testing.assert_close(steps, steps.mean().expand_as(steps))
    assert torch.linalg.matrix_rank(found.reshape(found.shape[0], -1)) == 1


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 512, (1, 3)), nn.Conv2d(64, 512, (3, 1))])
def test_rows_have_the_marginal_of_the_mixture(layer: nn.Conv2d) -> None:
    """Σ π (m mᵀ + Σ) − (Σ π m)(Σ π m)ᵀ of the middle row or column, in the analytic covariance of all nine numbers."""
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(2000, 9, generator=generator) @ torch.randn(9, 9, generator=generator) + 1
    kernels[:500] = 3 - 0.3 * kernels[:500].flip(1)
    prior = GaussianMixture((1, 3, 3), 3, (0.5, 1.5)).fit_(kernels.view(-1, 1, 3, 3), generator=generator)
    apply_(layer, prior, scale="prior", seed=0)
    drawn = layer.weight.detach().reshape(-1, 3)
    share, squares = prior.weight.sum(1), (prior.weight * torch.tensor(prior.scales).square()).sum(1)
    half = prior.whitening.basis * prior.whitening.scale @ prior.scale_tril
    loc = prior.whitening.inverse(prior.loc)
    mean = share @ loc
    covariance = torch.einsum("k,kij,klj->il", squares, half, half) + torch.einsum("k,ki,kj->ij", share, loc, loc)
    covariance -= torch.outer(mean, mean)
    kept = torch.tensor([3, 4, 5] if layer.kernel_size == (1, 3) else [1, 4, 7])
    unit = covariance.diag()[kept].sqrt()
    assert ((drawn.mean(0) - mean[kept]) / unit).abs().max() < 0.03
    difference = drawn.T.cov() - covariance[kept][:, kept]
    assert (difference / torch.outer(unit, unit)).abs().max() < 0.05
