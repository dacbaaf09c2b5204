"""Whether a chain of modules returns less in space than it takes."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from dwp_init.convolutions import is_convolution

_RISES = (nn.Upsample, nn.PixelShuffle, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.Unflatten, nn.Fold)
_FALLS = (nn.Flatten, nn.Linear, nn.PixelUnshuffle)


def reduces(chain: Sequence[nn.Module]) -> bool:
    """Whether some modules of a chain take steps over the pixels or all of them at once, and none makes more pixels.

    A border that a convolution without padding loses is no sign: another module may have added it.
    """
    return any(map(_falls, chain)) and not any(map(_rises, chain))


def _rises(module: nn.Module) -> bool:
    return isinstance(module, _RISES) or bool(getattr(module, "transposed", False))


def _falls(module: nn.Module) -> bool:
    if not is_convolution(module) and not type(module).__module__.endswith(".pooling"):
        return isinstance(module, _FALLS)
    missing = 1 if is_convolution(module) else None
    stride: Any = getattr(module, "stride", missing)  # adaptive pooling has none, and LPPool None for its kernel's size
    return stride is None or any(step > 1 for step in (stride if isinstance(stride, Iterable) else [stride]))
