"""How the weight of each kind of convolution is made of kernels."""

import itertools

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, apply_
from dwp_init.authored import is_untouched
from dwp_init.convolutions import layer_of
from tests.models import Fit, named

PLAIN = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [*PLAIN, *TRANSPOSED])
def test_every_kernel_joins_its_own_pair_of_channels(kind: type[nn.Conv1d], groups: int) -> None:
    """The weight that a convolution has between two channels is the kernel of this pair, output by output."""
    inputs, outputs, size = 4, 6, (3, 2, 4)[: 1 + (*PLAIN, *TRANSPOSED).index(kind) % 3]
    module = kind(inputs, outputs, size, groups=groups, stride=2)
    layer = layer_of(module)
    pairs = outputs * inputs // groups
    kernels = torch.randn(pairs, 1, *size)
    weight = layer.arrange(kernels)
    found = itertools.count()
    for output, i in itertools.product(range(outputs), range(inputs // groups)):
        group, within = divmod(output, outputs // groups)
        input = group * (inputs // groups) + i
        joined = weight[input, within] if kind in TRANSPOSED else weight[output, i]
        assert torch.equal(joined, kernels[next(found), 0])
    assert torch.equal(layer.filters(weight).reshape(kernels.shape), kernels)
    assert layer.weights == pairs * layer.size.numel() and layer.blocks == groups
    strides = 2 ** len(size) if kind in TRANSPOSED else 1
    assert layer.he_rms == pytest.approx((2 * strides / (inputs // groups * layer.size.numel())) ** 0.5)
    assert [len(matrix) for matrix in layer.correlations] == list(size)


@pytest.mark.parametrize("size", [(5,), (3, 3, 3), (2, 3, 4)])
def test_priors_of_one_and_three_dimensions_draw_layers_and_score_their_kernels(size: tuple[int, ...]) -> None:
    kinds = {1: (nn.Conv1d, nn.ConvTranspose1d), 3: (nn.Conv3d, nn.ConvTranspose3d)}[len(size)]
    prior = Gaussian((1, *size)).fit_(0.1 * torch.randn(500, 1, *size).cumsum(-1))
    model = nn.Sequential(*(kind(4, 8, size, groups=2) for kind in kinds))
    report = apply_(model, prior, scale="prior", seed=0, strict=True)
    assert report.initialized == ["0", "1"]
    for module in model:
        kernels = layer_of(module).filters(module.weight.detach()).flatten(0, 1).unsqueeze(1)
        assert prior.log_prob(kernels).mean() > prior.log_prob(torch.randn_like(kernels)).mean()


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_each_expert_is_drawn_like_a_convolution_of_its_own(groups: int, orthogonal: bool, gaussian: Fit) -> None:
    layers = pytest.importorskip("timm.layers")
    experts = layers.CondConv2d(16, 32, 3, groups=groups, num_experts=3)
    alone = nn.Sequential(*(nn.Conv2d(16, 32, 3, groups=groups) for _ in range(3)))
    options = {"scale": "prior", "orthogonal": orthogonal}
    report = apply_(experts, gaussian(3), generator=torch.Generator().manual_seed(0), **options)
    apply_(alone, gaussian(3), generator=torch.Generator().manual_seed(0), **options)
    assert report.drawn[0].kind == f"CondConv2d 3×{32 * 16 // groups * 9}"
    expected = torch.stack([module.weight.detach().flatten() for module in alone])
    scale = expected.norm(dim=1, keepdim=True) / experts.weight.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(experts.weight.detach() * (scale if orthogonal else 1), expected)
    assert torch.equal(layer_of(experts).filters(experts.weight), experts.weight.view(-1, 16 // groups, 3, 3))


def test_experts_start_as_torch_starts_convolutions() -> None:
    experts = pytest.importorskip("timm.layers").CondConv2d(16, 32, 3)
    assert is_untouched(layer_of(experts)) and is_untouched(layer_of(nn.ConvTranspose1d(16, 32, 3)))
    nn.init.normal_(experts.weight, 0.0, 0.1)
    assert not is_untouched(layer_of(experts))


def test_strict_minds_experts_without_a_prior(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), pytest.importorskip("timm.layers").CondConv2d(8, 8, 5))
    with pytest.raises(ValueError, match="strict: no prior given fits 5×5"):
        apply_(model, gaussian(3), strict=True)
    assert apply_(model, gaussian(3)).spatial == {"0": 288, "1": 4 * 8 * 8 * 25}


def test_an_expert_with_a_weight_of_another_shape_is_skipped(gaussian: Fit) -> None:
    module = pytest.importorskip("timm.layers").CondConv2d(4, 8, 3)
    module.weight = nn.Parameter(module.weight[:, :-1].detach())
    with pytest.raises(ValueError, match=r"its weight has shape \(4, 287\), but its experts need \(4, 288\)"):
        apply_(module, gaussian(3))


def test_a_layer_of_one_slice_takes_planes(gaussian: Fit) -> None:
    """A 3-D convolution of 1×k×k is a 2-D one of each image, in any order of the axes."""
    plane = nn.Conv2d(4, 8, 3)
    apply_(plane, gaussian(3), seed=0)
    for size in ((1, 3, 3), (3, 1, 3), (3, 3, 1)):
        volume = nn.Conv3d(4, 8, size)
        assert apply_(volume, named(gaussian(3), "three"), seed=0).drawn[0].prior == "three"
        ratio = volume.weight.detach().squeeze() / plane.weight.detach()
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))  # scaled to what was there before
