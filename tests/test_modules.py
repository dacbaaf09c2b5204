"""Convolutions of classes that torch does not have: drawn by their attributes, or skipped for a reason."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from dwp_init import apply_
from dwp_init.convolutions import layer_of
from dwp_init.modules import per_axis
from tests.models import Fit


class Custom(nn.Module):
    """A module with the weight and the attributes that a test gives it."""

    def __init__(self, *shape: int, name: str = "weight", **attributes: Any) -> None:
        super().__init__()
        if shape:
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        vars(self).update(attributes)


CHANNELS = {"in_channels": 4, "out_channels": 8}
SQUARE = {"kernel_size": (3, 3), **CHANNELS}
ALIKE = [  # with the convolution that each is like
    (Custom(8, 4, 3, 3, groups=1, kernel_size=(3, 3)), nn.Conv2d(4, 8, 3)),
    (Custom(8, 2, 3, 3, groups=2, **SQUARE), nn.Conv2d(4, 8, 3, groups=2)),
    (Custom(8, 4, 3, 3, **SQUARE), nn.Conv2d(4, 8, 3)),  # no groups, but its channels say that there is one
    (Custom(8, 4, 3, 3, kernel_size=3, stride=2, dilation=2, **CHANNELS), nn.Conv2d(4, 8, 3, stride=2, dilation=2)),
    (Custom(8, 4, 3, 3, kernel_size=[3, 3], **CHANNELS), nn.Conv2d(4, 8, 3)),
    (
        Custom(4, 4, 3, 3, groups=2, transposed=True, stride=(2, 2), **SQUARE),
        nn.ConvTranspose2d(4, 8, 3, 2, groups=2),
    ),
    (Custom(8, 4, 3, 3, groups=None, **SQUARE), nn.Conv2d(4, 8, 3)),
    (Custom(8, 4, 3, 3, kernel_size=3, groups=1, in_channels=(2, 4), out_channels=(4, 8)), nn.Conv2d(4, 8, 3)),
    (parametrizations.weight_norm(Custom(8, 4, 3, 3, **SQUARE)), nn.Conv2d(4, 8, 3)),
]


@pytest.mark.parametrize(("custom", "plain"), ALIKE)
def test_a_module_with_a_convolutions_attributes_is_drawn_like_it(
    custom: nn.Module, plain: nn.Conv2d, gaussian: Fit
) -> None:
    for module in (custom, plain):
        report = apply_(module, gaussian(3), scale="fan_in", seed=0, strict=True)
        assert report.initialized == [""] and report.spatial == {"": plain.weight.numel()}
    torch.testing.assert_close(custom.weight, plain.weight)
    assert layer_of(custom).he_rms == layer_of(plain).he_rms


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolutions_are_drawn_like_others(groups: int, gaussian: Fit) -> None:
    ops = pytest.importorskip("torchvision.ops")
    deformable, plain = ops.DeformConv2d(4, 8, 3, groups=groups), nn.Conv2d(4, 8, 3, groups=groups)
    plain.load_state_dict(deformable.state_dict())
    for module in (deformable, plain):
        apply_(module, gaussian(3), seed=0)
    assert torch.equal(deformable.weight, plain.weight)


WAY_OUT = "initialise it yourself"
SKIPS = [
    (Custom(8, 9, 4, name="W", groups=1, **SQUARE), "Custom has no parameter called weight: " + WAY_OUT),
    (Custom(8, 4, 3, 3), "Custom with a weight (8, 4, 3, 3) has no kernel_size: " + WAY_OUT),
    (Custom(1, 8, 4, 3, 3, kernel_size=(3, 3)), "Custom with a weight (1, 8, 4, 3, 3) has no groups: " + WAY_OUT),
    (
        Custom(4, 8, 3, 3, **SQUARE),
        "Custom has a weight (4, 8, 3, 3), but its attributes say (8, 4, 3, 3): " + WAY_OUT,
    ),
    (
        Custom(8, 3, 3, 3, 4, groups=1, **{**SQUARE, "kernel_size": (3, 3, 3)}),
        "Custom has a weight (8, 3, 3, 3, 4), but its attributes say (8, 4, 3, 3, 3): " + WAY_OUT,
    ),
    (
        Custom(8, 3, 3, 3, groups=3, kernel_size=3, in_channels=9, out_channels=8),
        "its weight has shape (8, 3, 3, 3), but 3 groups",
    ),
    (
        prune.identity(Custom(8, 4, 3, 3, **SQUARE), "weight"),
        "its weight is not a parameter, as under prune: call apply_ before the weight is replaced",
    ),
]


@pytest.mark.parametrize(("custom", "reason"), SKIPS)
def test_a_convolution_that_is_not_understood_counts_as_one(custom: nn.Module, reason: str, gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), custom)
    report = apply_(model, gaussian(3))
    assert report.skipped == {"1": reason}
    assert report.spatial == {"0": 288, "1": custom.weight.numel() if hasattr(custom, "weight") else 288}
    with pytest.raises(ValueError, match=f"strict: .*{re.escape(reason)}"):
        apply_(model, gaussian(3), strict=True)
    assert apply_(model, gaussian(3), strict=True, layers="0").initialized == ["0"]


@pytest.mark.parametrize(
    "module",
    [
        Custom(8, 4, 3),  # experts of a transformer
        Custom(1, 8, 1, 1),  # a scale for each channel
        Custom(kernel_size=(3, 3), **CHANNELS),  # a pooling layer
        Custom(8, 4, name="other", kernel_size=(3, 3)),
        nn.LayerNorm([2, 3, 4, 4]),
        nn.Bilinear(2, 3, 4),
    ],
)
def test_other_modules_are_no_convolutions(module: nn.Module) -> None:
    assert not layer_of(module).is_convolution


def test_attributes_for_each_axis() -> None:
    module = Custom(stride=torch.tensor(2), dilation=(1, torch.tensor(2)), padding="same", flag=True)
    found = [per_axis(module, name, 2) for name in ("stride", "dilation", "padding", "missing", "flag")]
    assert found == [(2, 2), (1, 2), (1, 1), (1, 1), (1, 1)]
