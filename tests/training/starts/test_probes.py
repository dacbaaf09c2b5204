import math

import pytest
import torch
from torch import Tensor, nn

from dwp_init import KernelDensity
from training.starts.base import initialize_
from training.starts.priors import DWP, DWP_ORTHOGONAL
from training.starts.probes import activation_scale, channel_rank, effective_rank


def test_the_effective_rank_of_known_channels() -> None:
    c = 6
    flat = torch.randn(c, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    flat -= flat.mean(1, keepdim=True)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(flat.cov()), flat, upper=False)

    def rank(channels: Tensor) -> float:
        return effective_rank(channels.view(c, 40, 10, 10).transpose(0, 1) + 5)

    assert rank(white) == pytest.approx(c)
    assert rank(white[:1] * torch.arange(1.0, c + 1)[:, None]) == pytest.approx(1)
    assert rank(torch.zeros(c, 4000)) == 0
    variances = torch.tensor([0.5, 0.25, 0.25, 0, 0, 0])  # entropy 1.5 bits
    assert rank(white * variances.sqrt()[:, None]) == pytest.approx(2**1.5)


def test_ranks_and_scales_after_each_spatial_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3))
    nn.init.constant_(model[0].weight, 0.0)
    nn.init.constant_(model[3].weight, 0.0)
    model[0].weight.data[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    nn.init.constant_(model[3].bias, -7.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.ones(2, 3, 8, 8)
    assert activation_scale(model, x) == pytest.approx([math.sqrt(30 / 4), 7.0])
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert channel_rank(model, x) == pytest.approx([1.0, 0.0], abs=1e-3)
    assert model.training and not model[0]._forward_hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_orthogonal_channels_raise_the_rank_of_kernels_with_a_mean(images: Tensor) -> None:
    """The reason for the option: a mean that kernels share adds up over input channels, so that all outputs are alike.

    Here it has 17 % of their energy, as in the authors' 5×5 kernels.
    """
    kernels = torch.randn(200, 1, 5, 5, generator=torch.Generator().manual_seed(0)) + 0.45
    prior = KernelDensity((1, 5, 5), 200).fit_(kernels)
    ranks = {}
    for init in (DWP, DWP_ORTHOGONAL):
        torch.manual_seed(0)
        layers = [part for into in (3, 16, 16) for part in (nn.Conv2d(into, 16, 5), nn.BatchNorm2d(16), nn.ReLU())]
        model = nn.Sequential(*layers)
        initialize_(model, init, 0, priors=[prior])
        ranks[init] = channel_rank(model, images)
    assert all(ours > plain for ours, plain in zip(ranks[DWP_ORTHOGONAL], ranks[DWP], strict=True))
    assert ranks[DWP][1] < 8 < 12 < ranks[DWP_ORTHOGONAL][1]
