from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.starts.base import initialize_, spatial_convolutions
from training.starts.whitening import AIRBENCH_RIDGE, WHITENED, WHITENED_DIRAC, WHITENED_NATURAL, whitening_filters

Make = Callable[..., nn.Module]


@pytest.mark.parametrize("settings", [{"kernel_size": 3}, {"kernel_size": 2, "stride": 2}, {"kernel_size": (1, 3)}])
@pytest.mark.parametrize("dilation", [1, 2])
def test_responses_to_all_patches_are_uncorrelated_and_of_unit_power(
    settings: dict, dilation: int, images: Tensor
) -> None:
    layer = nn.Conv2d(3, 60, **settings, dilation=dilation)
    filters = whitening_filters(images, layer)
    dim = layer.weight[0].numel()
    assert len(filters) == 2 * dim and torch.equal(filters[1::2], -filters[::2])
    responses = F.conv2d(images, filters[::2], dilation=dilation).transpose(0, 1).flatten(1).double()
    power = responses @ responses.T / responses.shape[1]
    torch.testing.assert_close(power, torch.eye(dim).double(), atol=3e-3, rtol=0)


@pytest.mark.parametrize("number", [0.1, 10.0])
def test_the_largest_eigenvalues_come_first_and_the_ridge_is_airbenchs(number: float) -> None:
    """Of images that are one number, λ₁ = 9 · its square, all others are 0, and their mean is its square."""
    layer = nn.Conv2d(1, 4, 3)
    filters = whitening_filters(torch.full((70, 1, 5, 5), number), layer)
    norms = filters.flatten(1).norm(dim=1)
    expected = torch.tensor([(9 + AIRBENCH_RIDGE) ** -0.5, *[AIRBENCH_RIDGE**-0.5] * 8]).repeat_interleave(2) / number
    torch.testing.assert_close(norms, expected, rtol=2e-2, atol=0)


@pytest.mark.parametrize("outputs", [5, 8, 20])
def test_a_stem_of_any_width_takes_as_many_filters_as_there_are(outputs: int, images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(1, outputs, 2), nn.Conv2d(outputs, 4, 3))
    first, second = (layer.weight.detach().clone() for layer in network)
    drawn = initialize_(network, WHITENED, 0, batch=images[:, :1])
    filters = whitening_filters(images[:, :1], network[0])
    assert torch.equal(network[0].weight[:8], filters[:outputs]) and torch.equal(network[1].weight, second)
    assert torch.equal(network[0].weight[8:], first[8:])
    assert drawn == pytest.approx(min(outputs, 8) * 4 / (outputs * 4 + outputs * 36))


@pytest.mark.parametrize(("start", "others"), [(WHITENED_DIRAC, "dirac"), (WHITENED_NATURAL, "natural")])
def test_all_other_layers_are_as_without_whitening(start: str, others: str, make: Make) -> None:
    whitened, stem, plain = (make("mobilenet", each) for each in (start, WHITENED, others))
    for place, (name, layer) in enumerate(spatial_convolutions(whitened).items()):
        expected = plain if place else stem
        assert torch.equal(layer.weight, expected.get_submodule(name).weight)
    assert whitened.drawn == pytest.approx(1)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            nn.Conv2d(4, 8, 3),
            {},
            r"first convolution, in one group, of images of 3 channels, but it is 0 \(Conv2d\(4, 8",
        ),
        (nn.Conv2d(3, 9, 3, groups=3), {}, r"but it is 0 \(Conv2d\(3, 9, .*groups=3\)\); leave this start out"),
        (nn.ConvTranspose2d(3, 8, 3), {}, r"but it is 0 \(ConvTranspose2d"),
        (nn.Conv2d(3, 8, 3), {"layers": ("1",)}, "but it is not among the layers to fill; leave this start out"),
    ],
)
def test_helpful_errors(network: nn.Module, options: dict, message: str, images: Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        initialize_(nn.Sequential(network, nn.Conv2d(8, 8, 3)), WHITENED, 0, batch=images, **options)
