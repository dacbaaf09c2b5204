from collections.abc import Callable

import pytest
import torch
from torch import nn

from dwp_init.resolution import reduces

PADDED = nn.Conv2d(2, 2, 3, padding=1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: [PADDED, nn.ReLU(), PADDED], False),
        (lambda: [nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding="same")], False),
        (lambda: [nn.ReflectionPad2d(1), nn.Conv2d(2, 2, 3)], False),
        (lambda: [nn.Conv2d(2, 2, 3, padding=2), nn.Conv2d(2, 2, 3)], False),
        (lambda: [PADDED, nn.AvgPool2d(3, 1, 1)], False),
        (lambda: [nn.Conv2d(2, 2, 3, stride=(1, 2), padding=1)], True),
        (lambda: [PADDED, nn.AvgPool2d(2)], True),
        (lambda: [PADDED, nn.MaxPool2d(3, (2, 1), 1)], True),
        (lambda: [PADDED, nn.LPPool2d(2, 2)], True),
        (lambda: [PADDED, nn.AdaptiveMaxPool2d(1)], True),
        (lambda: [PADDED, nn.PixelUnshuffle(2)], True),
        (lambda: [nn.AvgPool2d(2), PADDED, nn.Upsample(scale_factor=2)], False),
        (lambda: [nn.Conv2d(2, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 2, 2)], False),
        (lambda: [nn.PixelUnshuffle(2), nn.Conv2d(8, 8, 3, padding=1), nn.PixelShuffle(2)], False),
        (list, False),
    ],
)
def test_a_chain_reduces(make: Callable[[], list[nn.Module]], expected: bool) -> None:
    chain = make()
    assert reduces(chain) is expected
    returned = nn.Sequential(*chain)(torch.zeros(1, 2, 8, 8)).shape[2:].numel()
    assert returned < 64 if expected else returned == 64


def test_what_forgets_where_pixels_are_reduces() -> None:
    assert reduces([PADDED, nn.Flatten()]) and reduces([nn.Linear(2, 2)])
