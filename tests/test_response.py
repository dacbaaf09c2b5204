"""Gain and response of weights, against values in closed form."""

import math

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, apply_
from dwp_init.response import ALIKE, RHO, correlation, strength
from tests.models import Fit, responses

ONES = 1 + 2 * (2 * RHO + RHO**2) / 3  # Σᵢⱼ ρ^|i−j| / 3 over three equal taps


@pytest.mark.parametrize(
    ("weight", "options", "gain"),
    [
        (torch.eye(9).view(9, 1, 3, 3), {}, 1.0),  # kernels of one tap each
        (torch.ones(2, 2, 3, 3), {}, ONES),
        (torch.ones(2, 2, 3), {}, math.sqrt(ONES)),
        (torch.ones(2, 2, 1, 3), {}, math.sqrt(ONES)),
        (torch.ones(2, 2, 3, 3, 3), {}, ONES**1.5),
        (torch.tensor([1.0, -1.0]).view(1, 1, 2), {}, math.sqrt(1 - RHO)),
        (torch.tensor([1.0, 1.0]).view(1, 1, 2), {"dilation": 2}, math.sqrt(1 + RHO**2)),
        (torch.tensor([1.0, 1.0]).view(1, 1, 2), {"stride": 2}, 1.0),  # each output value sees one of the taps
        (torch.ones(1, 1, 4), {"stride": 2}, math.sqrt(1 + RHO)),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 1e-25, 1e25])
def test_gain(weight: torch.Tensor, options: dict[str, int], gain: float, factor: float) -> None:
    size = weight.shape[2:]
    stride = [options["stride"]] * len(size) if "stride" in options else None
    found = strength(weight * factor, correlation(size, [options.get("dilation", 1)] * len(size), stride))
    assert found.gain == pytest.approx(gain, rel=1e-6)
    assert found.rms == pytest.approx(factor * weight.square().mean().sqrt().item(), rel=1e-6)


def test_white_noise_has_a_gain_of_one_whatever_its_layout() -> None:
    weight = torch.randn(64, 64, 5, 5, generator=torch.Generator().manual_seed(0))
    matrices = correlation((5, 5), (1, 1))
    found = strength(weight, matrices)
    assert found == pytest.approx((1, 1), rel=0.02)
    assert strength(weight.to(memory_format=torch.channels_last), matrices) == pytest.approx(found, rel=1e-5)


def test_kernels_of_one_output_channel_add_up_as_far_as_inputs_are_alike() -> None:
    equal, opposite = torch.ones(4, 2, 1, 1), torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    white = correlation((1, 1), (1, 1))
    assert strength(equal, white, 0.5).gain == pytest.approx(math.sqrt(1.5))
    assert strength(opposite, white, 0.5).gain == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(("value", "rms"), [(0.0, 0.0), (math.nan, math.nan), (math.inf, math.inf)])
def test_weights_without_a_scale(value: float, rms: float) -> None:
    found = strength(torch.full((2, 1, 3, 3), value), correlation((3, 3), (1, 1)))
    assert found.rms == pytest.approx(rms, nan_ok=True) and (found.gain == 1 or math.isnan(found.gain))


def test_keep_changes_nothing_of_the_response_and_a_second_time_nothing_of_the_scale(gaussian: Fit) -> None:
    layer = nn.Conv2d(16, 32, 3)
    before = responses(layer)[""]
    first, second = (apply_(layer, gaussian(3), seed=0).drawn[0] for _ in range(2))
    assert responses(layer)[""] == pytest.approx(before, rel=1e-5)
    assert first.rms_before * first.gain_before == pytest.approx(first.rms_after * first.gain_after, rel=1e-5)
    assert (second.rms_after, second.gain_after) == pytest.approx((first.rms_after, first.gain_after), rel=1e-5)


@pytest.mark.parametrize("scale", ["keep", "fan_in"])
def test_a_weight_without_a_scale_to_keep_takes_that_of_he(scale: str, gaussian: Fit) -> None:
    layer = nn.Conv2d(4, 8, 3)
    nn.init.constant_(layer.weight, math.nan)
    apply_(layer, gaussian(3), scale=scale, layers="")
    assert responses(layer)[""] == pytest.approx(math.sqrt(2 / 36), rel=1e-5)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_activations_do_not_grow_in_a_deep_network_without_normalisation(kernel_size: int) -> None:
    """At He's root mean square 20 layers grew by 1.79, 2.22 and 2.48 a layer (natural, 3×3, 5×5, 7×7)."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(24 if i else 3, 24, kernel_size, padding=kernel_size // 2) for i in range(20)]
    apply_(nn.Sequential(*convolutions), "natural", scale="fan_in", seed=0)
    x = torch.nn.functional.avg_pool2d(torch.randn(2, 3, 68, 68), 5, 1)
    scales = []
    with torch.no_grad():
        for convolution in convolutions:
            x = convolution(x).relu()
            scales.append(x.square().mean().sqrt().item())
    assert 0.85 < (scales[-1] / scales[0]) ** (1 / 19) < 1.2


def test_smooth_kernels_get_smaller_weights(gaussian: Fit) -> None:
    smooth = Gaussian((1, 3, 3)).fit_(torch.ones(100, 1, 3, 3) + 0.01 * torch.randn(100, 1, 3, 3))
    layer = nn.Conv2d(16, 16, 3)
    drawn = apply_(layer, smooth, scale="fan_in", seed=0).drawn[0]
    alike = math.sqrt(1 - ALIKE + 16 * ALIKE)  # 16 input channels, all with the same kernel
    assert drawn.rms_after == pytest.approx(math.sqrt(2 / 144) / ONES / alike, rel=0.01)


def test_a_large_weight_is_measured_by_a_part_of_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root mean square is that of all weights; the gain is within half a percent, and always the same."""
    smooth = torch.randn(600, 400, 3, 3, generator=torch.Generator().manual_seed(0)).cumsum(3)
    matrices = correlation((3, 3), (1, 1))
    found = strength(smooth, matrices, 0.4)
    assert found == strength(smooth.clone(), matrices, 0.4)
    monkeypatch.setattr("dwp_init.response._MEASURED", smooth.numel())
    whole = strength(smooth, matrices, 0.4)
    assert found.rms == pytest.approx(whole.rms, rel=1e-5)
    assert found.gain == pytest.approx(whole.gain, rel=5e-3) and found.gain != whole.gain
