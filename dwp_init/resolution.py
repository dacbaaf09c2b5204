"""Whether a chain of modules returns less in space than it takes."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from dwp_init.convolutions import is_convolution
from dwp_init.modules import per_axis

_RISES = (nn.Upsample, nn.PixelShuffle, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.Unflatten, nn.Fold)
_FALLS = (nn.Flatten, nn.Linear, nn.PixelUnshuffle)


def reduces(chain: Sequence[nn.Module]) -> bool:
    """Whether some modules of a chain make images smaller, and none makes them larger.

    Convolutions do so by their stride, or without padding.
    """
    return any(map(_falls, chain)) and not any(map(_rises, chain))


def _rises(module: nn.Module) -> bool:
    return isinstance(module, _RISES) or bool(getattr(module, "transposed", False))


def _falls(module: nn.Module) -> bool:
    if not is_convolution(module):
        return isinstance(module, _FALLS) or type(module).__module__.endswith(".pooling")
    settings: Any = module
    axes = len(settings.kernel_size)
    stride, dilation = (per_axis(module, name, axes) for name in ("stride", "dilation"))
    if any(step > 1 for step in stride):
        return True
    padding = getattr(settings, "padding", 0)
    if isinstance(padding, str):
        return padding == "valid" and any(size > 1 for size in settings.kernel_size)
    pads = [padding] * axes if isinstance(padding, int) else padding
    return any(
        2 * pad < step * (size - 1) for size, step, pad in zip(settings.kernel_size, dilation, pads, strict=False)
    )
