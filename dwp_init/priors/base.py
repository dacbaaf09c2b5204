"""What every prior over kernels can do."""

import itertools
import math
import operator
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

KernelShape = tuple[int, int, int]
MAX_SIZE = 2**20


class Prior(nn.Module, ABC):
    """Describes a distribution p(w) over the k×k kernels of a convolution.

    Args:
        kernel_shape: ``(c, k, k)`` of one kernel; ``c = 1`` in the paper, where each kernel joins one input channel
            to one output channel (Eq. 5).

    Attributes:
        family: The name of the family in a prior's ``config.json``.
        exact: Whether :meth:`log_prob` is exact; else it is a lower bound.
        has_noise: Whether :meth:`sample` has a last, white step that ``noise=False`` leaves out.
        chunk: Kernels drawn at a time, which bounds the memory of :meth:`sample`, and a VAE's of :meth:`log_prob`.
        details: What is known of this prior beside its parameters: name, source, metrics. JSON, saved with it.
    """

    family: ClassVar[str]
    exact: ClassVar[bool]
    has_noise: ClassVar[bool] = False
    chunk: int = 4096

    def __init__(self, kernel_shape: KernelShape) -> None:
        super().__init__()
        self.kernel_shape = _checked_shape(kernel_shape)
        self.details: dict[str, Any] = {}

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Returns the arguments, beside ``kernel_shape``, that rebuild this prior with other parameters; JSON."""

    @abstractmethod
    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, k, k)`` to log p(w) ``(n,)``, in nats per kernel."""

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        """Draws at most ``chunk`` kernels, ``(n, d)`` with ``d = c·k·k``."""

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = True) -> Tensor:
        """Draws kernels on the prior's own device and in its own dtype, float32 unless it was converted.

        Args:
            n: How many.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
            noise: ``False`` leaves out the last, white step where a family has one: a VAE then returns the mean of
                p(w|z), as the paper's authors did. Families without such a step draw as ever.

        Returns:
            Kernels ``(n, c, k, k)``.

        Raises:
            TypeError: ``n`` is no whole number.
            ValueError: ``n`` is negative.
        """
        n = whole_number(n, "the number of kernels")
        if n < 0:
            raise ValueError(f"the number of kernels must be 0 or more; got {n}")
        kernels = torch.empty(n, self.dim, device=self.device, dtype=self.dtype)
        for start in range(0, n, self.chunk):
            stop = min(start + self.chunk, n)
            kernels[start:stop] = self._draw(stop - start, generator, noise)
        return kernels.view(n, *self.kernel_shape)

    def at(self, depth: float) -> "Prior":
        """Returns the prior for a layer at a relative depth, 0 the first and 1 the last: itself, in most families."""
        return self

    @property
    def dim(self) -> int:
        """Numbers in a kernel, ``c·k·k``."""
        c, height, width = self.kernel_shape
        return c * height * width

    @property
    def device(self) -> torch.device:
        """Where the prior's parameters lie."""
        return self._any_tensor().device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the prior's parameters."""
        return self._any_tensor().dtype

    @property
    def parameter_count(self) -> int:
        """Numbers trained by gradient or, in a family that is fitted otherwise, all that are kept."""
        return sum(tensor.numel() for tensor in list(self.parameters()) or self.buffers())

    def check(self) -> None:
        """Raises ``ValueError`` where the parameters, though finite, describe no density."""

    def extra_repr(self) -> str:
        return f"kernel_shape={self.kernel_shape}"

    def _any_tensor(self) -> Tensor:
        return next(itertools.chain(self.parameters(), self.buffers()), torch.empty(0))

    def _flatten(self, kernels: Tensor) -> Tensor:
        if not isinstance(kernels, Tensor):
            raise TypeError(f"kernels must be a tensor; got {type(kernels).__name__}")
        if kernels.dim() != 4 or tuple(kernels.shape[1:]) != self.kernel_shape:
            expected = ", ".join(map(str, self.kernel_shape))
            raise ValueError(f"kernels must have shape (n, {expected}); got {tuple(kernels.shape)}")
        return kernels.flatten(1).to(self.dtype)


def whole_number(value: object, name: str) -> int:
    """Returns an int, or what counts as one, such as numpy's; ``TypeError`` for anything else, ``True`` included."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} must be an int; got {value!r}")


def check_count(**counts: int) -> None:
    """Raises ``ValueError`` where one of a prior's arguments is no whole number from 1 up."""
    for name, count in counts.items():
        if type(count) is not int or not 1 <= count <= MAX_SIZE:
            raise ValueError(f"{name} must be a whole number from 1 to {MAX_SIZE}; got {count!r}")


def check_positive(**numbers: float) -> None:
    """Raises ``ValueError`` where one of a prior's arguments is no number above 0 and below 1,000,000."""
    for name, number in numbers.items():
        if type(number) not in (int, float) or not 0 < number < 1e6:
            raise ValueError(f"{name} must be a number above 0 and below 1,000,000; got {number!r}")


def check_dropout(dropout: float) -> None:
    """Raises ``ValueError`` where a share of units to drop is no number from 0 to below 1."""
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number from 0 to below 1; got {dropout!r}")


def _checked_shape(kernel_shape: KernelShape) -> KernelShape:
    shape = tuple(kernel_shape) if isinstance(kernel_shape, (tuple, list)) else ()
    if len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"kernel_shape must be (channels, height, width), each 1 or more; got {kernel_shape!r}")
    if math.prod(shape) > MAX_SIZE:
        raise ValueError(f"kernel_shape must hold at most {MAX_SIZE} numbers; got {kernel_shape!r}")
    return shape
