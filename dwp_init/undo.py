"""Undo: tensors that are overwritten get their old values back if anything fails."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from types import FrameType, TracebackType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dwp_init.report import listed
from dwp_init.split import split
from dwp_init.storage import tensor_bytes
from dwp_init.weights import Weight

_IN_MEMORY = 2**22  # bytes of old values above which they are in a temporary file
_PART = 2**18  # weights that are copied at a time


class _Old(NamedTuple):
    """The old values of a tensor, where they are in the file, or a copy, and the name of its layer."""

    tensor: Tensor
    values: int | Tensor
    layer: str


class Undo:
    """A context in which weights may be overwritten; they get their old values back if it ends with an exception.

    Once a signal has ended it, or while it ends, further ones wait until the old values are back.

    A tensor that cannot be written keeps no other from its old values. If it has changed, the error says so.

    Old values beyond 4 MiB are in a temporary file, so that a model needs no second copy of its weights in memory. They
    are in memory too where no such file can be made, or it has no room left.
    """

    def __init__(self) -> None:
        self._file: FileIO | None = None
        self._in_memory = 0
        self._old: list[_Old] = []
        self._cached: list[tuple[nn.Module, Tensor]] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._ending, self._late = False, list[int]()

    def __enter__(self) -> "Undo":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if threading.current_thread() is threading.main_thread() and callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._handle)
            return self
        except BaseException:
            self._release_signals()
            raise

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Handles the first signal as before, and remembers those that arrive while old values are put back."""
        if self._ending or _ends_an_undo(frame):
            self._late.append(number)
        else:
            self._ending = True
            self._handlers[number](number, frame)
            self._ending = False  # a handler that only takes a note of the signal ends nothing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        try:
            if kind is not None:
                self._restore()
        finally:
            if self._file is not None:
                self._file.close()
            self._release_signals()
            for number in self._late:
                signal.raise_signal(number)

    def _release_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @torch.no_grad()
    def keep(self, weight: Weight, layer: str) -> None:
        """Keeps the values of the weight of a layer, which may then be written."""
        if "weight" in vars(weight.module):  # what a hook computed from the stored tensors
            self._cached.append((weight.module, vars(weight.module)["weight"]))
        for tensor in weight.stored:
            start = self._written(tensor)
            self._old.append(_Old(tensor, _copy(tensor) if start is None else start, layer))

    def _written(self, tensor: Tensor) -> int | None:
        """Writes the values of a tensor to the file, and returns where; ``None`` if they should be in memory."""
        size = tensor.numel() * tensor.element_size()
        if not _is_plain(tensor) or self._in_memory + size <= _IN_MEMORY:
            self._in_memory += size
            return None
        try:
            if self._file is None:  # without a buffer, so that what was written is there
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, closed by __exit__
            start = self._file.seek(0, os.SEEK_END)
            for part in _parts(tensor):
                left = memoryview(tensor_bytes(part))
                while left:
                    left = left[self._file.write(left) :]
        except OSError:
            return None
        return start

    @torch.no_grad()
    def _restore(self) -> None:
        """Puts all values back, whatever interrupts it; an interrupt is raised once that is done.

        Raises:
            RuntimeError: Some values could not be put back, though they had changed.
        """
        interrupt: BaseException | None = None
        lost: dict[str, Exception] = {}
        while self._old:
            try:
                if (failure := self._failure_to_put_back(self._old[-1])) is not None:
                    lost[self._old[-1].layer] = failure
                self._old.pop()
            except BaseException as error:
                interrupt = error
        for module, weight in self._cached:
            module.weight = weight
        if lost:
            raise RuntimeError(
                f"the weights of {listed(list(lost))} have changed, and their old values could not be put back "
                f"({next(iter(lost.values()))}): load or initialise these layers again"
            ) from (interrupt or next(iter(lost.values())))
        if interrupt is not None:
            raise interrupt

    def _failure_to_put_back(self, old: _Old) -> Exception | None:
        """Puts values back; returns why that failed, unless the tensor had not changed."""
        try:
            self._put_back(old)
        except Exception as error:
            return None if self._is_unchanged(old) else error
        return None

    def _put_back(self, old: _Old) -> None:
        for part, values in self._pairs(old):
            part.copy_(values)

    def _is_unchanged(self, old: _Old) -> bool:
        """Whether a tensor has its old values, as one that could not be written; ``False`` if that cannot be read."""
        try:
            return all(tensor_bytes(part) == tensor_bytes(values) for part, values in self._pairs(old))
        except Exception:
            return False

    def _pairs(self, old: _Old) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the parts of a tensor, each with its old values."""
        if isinstance(old.values, Tensor):
            yield old.tensor.detach(), old.values
            return
        file = cast(FileIO, self._file)
        file.seek(old.values)
        for part in _parts(old.tensor):
            packed = bytearray(part.numel() * part.element_size())
            left = memoryview(packed)
            while left:
                left = left[file.readinto(left) :]
            values = torch.frombuffer(packed, dtype=torch.uint8).view(part.dtype)
            yield part, values.view(part.shape)


def _ends_an_undo(frame: FrameType | None) -> bool:
    """Whether a frame is within :meth:`Undo.__exit__`, even before its first line."""
    while frame is not None and frame.f_code is not Undo.__exit__.__code__:
        frame = frame.f_back
    return frame is not None


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is of no subclass, which may have more than one tensor behind it."""
    return type(tensor) in (Tensor, nn.Parameter)


def _copy(tensor: Tensor) -> Tensor:
    """Returns a copy of a tensor, in the memory of the processor if the tensor is plain."""
    if _is_plain(tensor):
        return tensor.detach().to("cpu", copy=True)
    return tensor.detach().clone(memory_format=torch.preserve_format)


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Splits a tensor along its first dimension."""
    if tensor.dim() == 0 or not len(tensor):  # the latter where a process holds no part of a weight
        return (tensor.detach(),)
    rows = max(_PART // max(tensor[0].numel(), 1), 1)
    return split(tensor.detach(), rows)
