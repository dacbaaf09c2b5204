"""Undo: tensors that are overwritten get their old values back if anything fails."""

import tempfile
from types import TracebackType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dwp_init.storage import tensor_bytes
from dwp_init.weights import Weight

_IN_MEMORY = 2**22  # bytes of old values above which they are in a temporary file
_PART = 2**18  # weights that are copied at a time


class _Old(NamedTuple):
    """The old values of a tensor: where they are in the file, or a copy."""

    tensor: Tensor
    start: int
    copy: Tensor | None


class Undo:
    """A context in which weights may be overwritten; they get their old values back if it ends with an exception.

    Old values beyond 4 MiB are in a temporary file, so that a model needs no second copy of its weights in memory.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115, closed by __exit__
        self._old: list[_Old] = []
        self._cached: list[tuple[nn.Module, Tensor]] = []

    def __enter__(self) -> "Undo":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._restore()
        finally:
            self._file.close()

    @torch.no_grad()
    def keep(self, weight: Weight) -> None:
        """Keeps the values of a weight, which may then be written."""
        if "weight" in vars(weight.module):  # what a hook computed from the stored tensors
            self._cached.append((weight.module, vars(weight.module)["weight"]))
        for tensor in weight.stored:
            start, copy = self._file.tell(), None
            if type(tensor) in (Tensor, nn.Parameter):
                for part in _parts(tensor):
                    self._file.write(tensor_bytes(part))
            else:  # a subclass may have more than one tensor behind it
                copy = tensor.detach().clone(memory_format=torch.preserve_format)
            self._old.append(_Old(tensor, start, copy))

    @torch.no_grad()
    def _restore(self) -> None:
        """Puts all values back, whatever interrupts it; an interrupt is raised once that is done."""
        interrupt: BaseException | None = None
        while self._old:
            try:
                self._put_back(self._old[-1])
                self._old.pop()
            except Exception:  # a tensor that cannot be written has not changed
                self._old.pop()
            except BaseException as error:
                interrupt = error
        for module, weight in self._cached:
            module.weight = weight
        if interrupt is not None:
            raise interrupt

    def _put_back(self, old: _Old) -> None:
        if old.copy is not None:
            old.tensor.copy_(old.copy)
            return
        self._file.seek(old.start)
        for part in _parts(old.tensor):
            packed = bytearray(self._file.read(part.numel() * part.element_size()))
            values = torch.frombuffer(packed, dtype=torch.uint8).view(part.dtype)
            part.copy_(values.view(part.shape))


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Splits a tensor along its first dimension."""
    if tensor.dim() == 0 or not len(tensor):  # the latter where a process holds no part of a weight
        return (tensor.detach(),)
    rows = max(_PART // max(tensor[0].numel(), 1), 1)
    return cast(tuple[Tensor, ...], tensor.detach().split(rows))
