"""Bounds on what is built for a configuration, which may come from anywhere."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SPARE = 2**18  # numbers that a small prior may use besides those in its file
_USES = 4  # times the bytes of the file that numbers may be made, set and changed; bundled priors need 0.75
_CALL = 16  # numbers that an operation counts as besides its result, for the time that it takes


class Bounded(TorchFunctionMode):
    """A context in which a prior is built, and which raises once it is larger than a file of its tensors can be.

    It counts the numbers of all tensors that are made, so the time and the memory of building grow with the file alone,
    whatever its configuration says.

    Args:
        size: Of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._left = size, _SPARE + _USES * size

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._left -= result.numel() + _CALL
            if self._left < 0:
                raise ValueError(f"it needs more numbers than the {self._size:,} bytes of its tensors can hold")
        return result


def reserve(numbers: int) -> None:
    """Counts numbers that are about to be made on the processor, before they take memory."""
    torch.empty(numbers, device="meta")
