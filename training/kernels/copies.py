"""Layers that checkpoints share, as a fine-tuned network does whose first layers were frozen."""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dwp_init.storage import tensor_bytes
from training.kernels.convolutions import ConvolutionTensor

_FEW = 16  # different kernels, which a layer that is trained hardly falls short of


class SharedLayers:
    """The layers of the checkpoints so far: each is taken once, and families that share one are one family.

    Two layers are the same if their weights are, perhaps in half precision. Fixed filters, which have few different
    kernels, such as blurs, Sobel's and identities, make no families one.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[ConvolutionTensor, str]] = {}
        self._joined: dict[str, str] = {}

    def find(
        self, layers: Iterable[tuple[ConvolutionTensor, Tensor]], family: str
    ) -> dict[ConvolutionTensor, ConvolutionTensor]:
        """Returns those of a checkpoint's layers that an earlier one has, with that one's, and remembers the others."""
        new: dict[str, tuple[ConvolutionTensor, str]] = {}
        shared: dict[ConvolutionTensor, ConvolutionTensor] = {}
        for layer, weight in layers:
            digests = _digests(weight)
            known = next((self._first[digest] for digest in digests if digest in self._first), None)
            if known is None:
                new |= dict.fromkeys(digests, (layer, family))
                continue
            shared[layer], other = known
            if not _is_fixed_filter(layer.cut(weight)):
                self._join(family, other)
        self._first |= new
        return shared

    def families(self, names: Iterable[str], preferred: Callable[[str], bool]) -> dict[str, str]:
        """Returns the name by which each family goes: of those that are one, the first preferred one, or the first."""
        members: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            members.setdefault(self._root(name), []).append(name)
        called = {root: next(filter(preferred, each), each[0]) for root, each in members.items()}
        return {name: called[root] for root, each in members.items() for name in each}

    def _join(self, family: str, other: str) -> None:
        one, two = self._root(family), self._root(other)
        if one != two:
            self._joined[one] = two

    def _root(self, family: str) -> str:
        while family in self._joined:
            family = self._joined[family]
        return family


def _digests(weight: Tensor) -> list[str]:
    """Returns the digests of a weight in half precision, except where that has no finite values other than 0."""
    halves = [weight.to(dtype) for dtype in (torch.float16, torch.bfloat16)]
    return [
        f"{half.dtype} {hashlib.sha256(tensor_bytes(half)).hexdigest()}"
        for half in halves
        if half.any() and half.isfinite().all()
    ]


def _is_fixed_filter(kernels: Tensor) -> bool:
    return len(kernels.flatten(1).unique(dim=0)) < _FEW
