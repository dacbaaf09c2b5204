"""``Tensor.split`` with a type, which PyTorch leaves out."""

from typing import cast

from torch import Tensor


def split(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    """Returns views of ``size`` entries of the first dimension each, of which the last may be shorter."""
    return cast(tuple[Tensor, ...], tensor.split(size))
