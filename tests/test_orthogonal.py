"""Orthogonal output channels."""

import pytest
import torch
from torch import Tensor, nn

from dwp_init import KernelDensity, apply_, load_prior
from dwp_init.orthogonal import orthogonal_channels
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


@pytest.mark.parametrize("groups", [1, 2])
def test_many_channels_are_made_orthogonal_block_by_block(groups: int) -> None:
    """Few components of the kernels change, which hold most of them; the singular values become alike."""
    drawn = load_prior("tinyimagenet-3x3").at(0.5).sample(groups * 160 * 160, torch.Generator().manual_seed(0))
    centred = drawn.view(groups, 160, -1) - drawn.view(groups, 160, -1).mean(2, keepdim=True)
    found = orthogonal_channels(drawn.clone(), groups, 160).view(groups, 160, -1)
    for before, after in zip(centred, found, strict=True):
        change = torch.linalg.svdvals((after - before).view(-1, 9).double())
        assert (change > 1e-4 * change[0]).sum() in (2, 3)
        spread = [values[0] / values[-1] for values in map(torch.linalg.svdvals, (before, after))]
        assert spread[0] > 5 and spread[1] < 1.3
        assert torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.8


def test_more_channels_than_their_kernels_have_room_for() -> None:
    """80 channels of 10 inputs: at most half of the components' dimensions are made orthogonal at once."""
    drawn = load_prior("tinyimagenet-3x3").at(0.5).sample(800, torch.Generator().manual_seed(0))
    found = orthogonal_channels(drawn, 1, 10).view(80, 90)
    gram = torch.nn.functional.normalize(found) @ torch.nn.functional.normalize(found).T
    assert found.isfinite().all() and (gram[:45, :45] - torch.eye(45)).abs().max() < 1e-3
