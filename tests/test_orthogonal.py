"""Orthogonal output channels."""

import pytest
import torch
from torch import Tensor, nn

from dwp_init import KernelDensity, apply_
from tests.models import Fit


@pytest.mark.parametrize(("groups", "outputs"), [(1, 8), (2, 12), (1, 36), (1, 60), (4, 4), (4, 8)])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_orthogonal_channels_are_the_nearest_to_the_draw(kind: type, groups: int, outputs: int, gaussian: Fit) -> None:
    layer = kind(4, outputs, 3, groups=groups)

    def by_group(orthogonal: bool) -> Tensor:
        apply_(layer, gaussian(3), seed=0, orthogonal=orthogonal)
        weight = layer.weight.detach()
        if kind is nn.ConvTranspose2d:
            weight = weight.reshape(groups, 4 // groups, -1, 3, 3).transpose(1, 2)
        return weight.reshape(groups, outputs // groups, -1)

    drawn, found = by_group(orthogonal=False).double(), by_group(orthogonal=True)
    rows, taps = drawn.shape[1:]
    nearest = drawn - drawn.mean(2, keepdim=True)
    if groups == 4:  # of one input each
        nearest = nearest / nearest.norm(dim=2, keepdim=True)
    elif rows < taps:
        left, _, right = torch.linalg.svd(nearest, full_matrices=False)
        nearest = left @ right  # the polar factor
    same = nearest * (found.square().mean().sqrt() / nearest.square().mean().sqrt())
    torch.testing.assert_close(found, same.float(), atol=1e-5, rtol=1e-4)


def test_orthogonal_channels_keep_the_priors_scale_if_asked(gaussian: Fit) -> None:
    layer = nn.Conv2d(4, 8, 3)
    plain = apply_(layer, gaussian(3), seed=0, scale="prior").drawn[0].rms_after
    assert apply_(layer, gaussian(3), seed=0, scale="prior", orthogonal=True).drawn[0].rms_after == pytest.approx(plain)


def test_orthogonal_channels_of_draws_that_are_partly_zero_stay_finite() -> None:
    kernels = torch.cat([torch.zeros(3, 1, 3, 3), torch.randn(3, 1, 3, 3)])
    prior, layer = KernelDensity((1, 3, 3), 6).fit_(kernels), nn.Conv2d(64, 64, 3, groups=64)
    apply_(layer, prior, noise=False, orthogonal=True, seed=0)
    weight = layer.weight.detach().flatten(1)
    assert weight.isfinite().all() and 0 < (weight.norm(dim=1) == 0).sum() < 64
    torch.testing.assert_close(weight.mean(1), torch.zeros(64), atol=1e-6, rtol=0)
    norms = weight.norm(dim=1)
    torch.testing.assert_close(norms[norms > 0], norms.max().expand(int((norms > 0).sum())))


def test_orthogonal_channels_stay_within_what_the_prior_draws(gaussian: Fit) -> None:
    """Resized kernels of two inputs span 18 dimensions of 98, 17 without their mean: what is nearest does too."""
    layer = nn.Conv2d(2, 32, 7)
    apply_(layer, gaussian(3), resize=True, seed=0)
    basis = torch.linalg.svd(layer.weight.detach().flatten(1).double()).Vh[:18]
    apply_(layer, gaussian(3), resize=True, orthogonal=True, seed=0)
    weight = layer.weight.detach().flatten(1).double()
    outside = weight - weight @ basis.T @ basis
    assert outside.square().sum() < 1e-9 * weight.square().sum()
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(values[:17], values[:1].expand(17), rtol=1e-5, atol=0)
    assert values[17] < 1e-4 * values[0]
