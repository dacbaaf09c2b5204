"""Groups: the kernels of one kind and size from many checkpoints, and their split by family."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from training.kernels.convolutions import ConvolutionTensor
from training.kernels.kernelset import norm_threshold, shuffled

MIN_NORM = 0.25
MIN_NORM_FILTER = 0.01
BY_FAMILY = "by family of checkpoints"
TEST_BY_FAMILY = "the test by family of checkpoints, validation by kernel, at random"
FEWEST_OF_A_PART = 2  # kernels
_HELD_OUT = 0.1  # of the families for validation, and again for the test


@dataclass(frozen=True)
class Settings:
    """What to harvest.

    Args:
        kind: One of :data:`training.kernels.kinds.LAYER_KINDS`; all by default.
        size: Size of the kernels, such as ``(1, 7)``; one number is that of every side, in any dimension; all by
            default.
        transposed: Patterns of the names of transposed convolutions, which shapes and names do not tell everywhere.
        per_layer: Maximum number of kernels taken from each tensor, at random.
        min_norm: Kernels are dropped if their Euclidean norm is below this times the 95 % quantile of the norms in
            their tensor. :class:`training.kernels.collect.Kernels` has one threshold for all networks; here it depends
            on the tensor, because checkpoints differ in scale. By default it is :data:`MIN_NORM`, and
            :data:`MIN_NORM_FILTER` where a kernel is a whole filter, in stems and depthwise layers: it has a scale
            of its own, which the batch norm behind it undoes or has been folded into, and only dead ones are so small.
        raw_scale: Whether kernels keep their scale; otherwise those kept of a tensor are divided by their root mean
            square.
        test: Patterns of the names of families to hold out for the test; one in ten by default.
        seed: Seed of the choice in each tensor, and of the split.
    """

    kind: str | None = None
    size: tuple[int, ...] | None = None
    transposed: tuple[str, ...] = ()
    per_layer: int = 2000
    min_norm: float | None = None
    raw_scale: bool = False
    test: tuple[str, ...] = ()
    seed: int = 0

    def threshold(self, kind: str) -> float:
        """Returns ``min_norm`` for layers of a kind."""
        whole_filter = kind == "stem" or kind.endswith("depthwise")
        default = MIN_NORM_FILTER if whole_filter else MIN_NORM
        return default if self.min_norm is None else self.min_norm

    def tests(self, family: str) -> bool:
        """Whether a family is to be held out for the test."""
        return any(fnmatchcase(family, pattern) for pattern in self.test)

    def takes(self, kind: str, size: tuple[int, ...]) -> bool:
        """Whether layers of this kind and size are asked for."""
        alike = self.size in (None, size) or (self.size is not None and self.size * len(size) == size)
        return alike and self.kind in (None, kind)


@dataclass
class Group:
    """Kernels of one kind and size, tensor by tensor; and which of their families were joined to which."""

    settings: Settings
    kernels: list[Tensor] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    joined: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.kernels))

    @property
    def kind(self) -> str:
        """One of :data:`training.kernels.kinds.LAYER_KINDS`."""
        return str(self.tensors[0]["kind"])

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the kernels, such as ``(k, k)``."""
        return tuple(self.tensors[0]["shape"][2:])

    @property
    def families(self) -> dict[str, str]:
        """The family of each checkpoint."""
        return {tensor["checkpoint"]: tensor["family"] for tensor in self.tensors}

    @property
    def all_families(self) -> list[str]:
        """The families, each once."""
        return list(dict.fromkeys(self.families.values()))

    def families_of(self, places: Tensor) -> list[str]:
        """Returns the families of the kernels at some positions."""
        tensors = self.labels()["tensor"][places].unique().tolist()
        return list(dict.fromkeys(self.tensors[tensor]["family"] for tensor in tensors))

    def rename(self, families: Mapping[str, str]) -> None:
        """Gives families the names of those that they are one with."""
        self.joined = {name: families[name] for name in self.all_families if families[name] != name}
        for tensor in self.tensors:
            tensor["family"] = families[tensor["family"]]

    def why_no_split(self) -> str:
        """Says why a part would have fewer than :data:`FEWEST_OF_A_PART` kernels however they are split, or nothing."""
        counts = [(self.settings.tests(tensor["family"]), tensor["kernels"]) for tensor in self.tensors]
        test = sum(count for tests, count in counts if tests)
        rest = len(self) - test
        if not rest:
            return "of families held out for the test alone"
        if test == 0 or (test >= FEWEST_OF_A_PART and rest >= 2 * FEWEST_OF_A_PART):
            return ""
        return (
            f"{rest} kernels to fit and validate and {test} of the families held out for the test, fewer than "
            f"{FEWEST_OF_A_PART} a part"
        )

    def add(self, layer: ConvolutionTensor, weight: Tensor, family: str) -> None:
        """Adds the kernels of a layer whose norm is not too small, and what is known of them."""
        kernels = layer.cut(weight)
        norms = kernels.double().flatten(1).norm(dim=1)
        kept = kernels[(norms >= norm_threshold(norms, self.settings.threshold(layer.kind))) & (norms > 0)]
        rms = kept.double().square().mean().sqrt()
        text = f"{self.settings.seed} {layer.checkpoint} {layer.name}"
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
        taken = kept[shuffled(len(kept), seed)[: self.settings.per_layer].sort().values]
        self.kernels.append(taken.clone() if self.settings.raw_scale else (taken / rms).float())
        self.tensors.append(
            {
                "checkpoint": layer.checkpoint,
                "family": family,
                "tensor": layer.name,
                "kind": layer.kind,
                "depth": round(layer.depth, 6),
                "shape": list(layer.entry.shape),
                "dtype": layer.entry.dtype,
                "rms": float(f"{rms.item():.6g}"),
                "kernels": len(taken),
                "kept": len(kept),
                "of": len(kernels),
            }
        )

    def labels(self) -> dict[str, Tensor]:
        """Returns each kernel's checkpoint and tensor, as positions in their lists, and its depth; all ``(n,)``."""
        names = {name: i for i, name in enumerate(self.families)}
        each = {
            "checkpoint": torch.tensor([names[tensor["checkpoint"]] for tensor in self.tensors], dtype=torch.int32),
            "tensor": torch.arange(len(self.tensors), dtype=torch.int32),
            "depth": torch.tensor([tensor["depth"] for tensor in self.tensors]),
        }
        counts = torch.tensor([len(kernels) for kernels in self.kernels])
        return {name: values.repeat_interleave(counts) for name, values in each.items()}

    def split(self, rank: dict[str, int]) -> tuple[list[Tensor], str]:
        """Splits by family, or at random where that is not possible.

        Args:
            rank: The place of each family in a random order.

        Returns:
            The positions of the kernels of each part, and how they were split.
        """
        order = sorted(self.all_families, key=lambda family: (self.settings.tests(family), rank[family]))
        held_out = max(round(_HELD_OUT * len(order)), 1)
        tests = sum(map(self.settings.tests, order))
        first = len(order) - held_out - (tests or held_out)
        if first > 0:
            parts = [order[:first], order[first : first + held_out], order[first + held_out :]]
            picked = [self._of(families) for families in parts]
            if min(map(len, picked)) >= FEWEST_OF_A_PART:
                return picked, BY_FAMILY
            why = f"split by family, a part would have fewer than {FEWEST_OF_A_PART}"
        else:
            why = f"{len(order)} famil{'ies' if len(order) > 1 else 'y'} of checkpoints cannot be split in three"
        if tests:
            return [*self._at_random(self._of(order[:-tests]), 1), self._of(order[-tests:])], f"{TEST_BY_FAMILY}: {why}"
        return self._at_random(torch.arange(len(self)), 2), f"by kernel, at random: {why}"

    def _of(self, families: list[str]) -> Tensor:
        """Returns the positions of the kernels of some families."""
        mine = torch.tensor([tensor["family"] in families for tensor in self.tensors])
        return mine[self.labels()["tensor"].long()].nonzero()[:, 0]

    def _at_random(self, places: Tensor, parts: int) -> list[Tensor]:
        """Splits positions into a part to fit and held-out parts of a tenth each."""
        held_out = max(int(_HELD_OUT * len(places)), FEWEST_OF_A_PART)
        sizes = [len(places) - i * held_out for i in range(parts, 0, -1)]
        return [places[part] for part in shuffled(len(places), self.settings.seed).tensor_split(sizes)]
