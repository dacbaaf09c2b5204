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
        (
            lambda: [nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 5, padding=4, dilation=2)],
            False,
        ),
        (lambda: [PADDED, nn.Conv2d(2, 2, 3)], True),
        (lambda: [nn.Conv2d(2, 2, (1, 3), padding=(1, 0))], True),
        (lambda: [nn.Conv2d(2, 2, 3, padding="valid")], True),
        (lambda: [nn.Conv2d(2, 2, 3, padding=1, dilation=2)], True),
        (lambda: [nn.Conv2d(2, 2, 3, stride=(1, 2), padding=1)], True),
        (lambda: [PADDED, nn.AvgPool2d(2)], True),
        (lambda: [PADDED, nn.AdaptiveMaxPool2d(1), nn.Flatten()], True),
        (lambda: [nn.AvgPool2d(2), PADDED, nn.Upsample(scale_factor=2)], False),
        (lambda: [nn.Conv2d(2, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 2, 2)], False),
        (lambda: [nn.PixelUnshuffle(2), nn.Conv2d(8, 8, 3, padding=1), nn.PixelShuffle(2)], False),
        (list, False),
    ],
)
def test_a_chain_reduces(make: Callable[[], list[nn.Module]], expected: bool) -> None:
    chain = make()
    assert reduces(chain) is expected
    if chain and not expected:  # none of these returns less
        x = torch.zeros(1, 2, 8, 8)
        assert nn.Sequential(*chain)(x).shape[2:] == x.shape[2:]
