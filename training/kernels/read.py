"""Kernels from files: a user's own arrays, and the kernel data sets of finished stages."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dwp_init.storage import write_bytes
from training.engine.records import DONE, check_outputs, read_done
from training.engine.stage import ADDED, FIXED, INFORMS, Context, Stage
from training.images.own import UNLICENSED
from training.kernels.kernelset import KERNELS, LABELS, PARTS, KernelSet, shuffled


@dataclass(frozen=True)
class KernelFile(Stage):
    """Reads a user's own kernels and splits them at random, because their networks are not known.

    Kernels of a finished kernels stage or of a harvest keep the split that they have.

    Args:
        path: ``.npy``, or ``.safetensors`` with one tensor, ``(n, k, k)`` or ``(n, c, k, k)``; or a stage's
            ``kernels.safetensors``. A file with the same digest may lie elsewhere later.
        sha256: Digest of the file, part of the stage's identity.
        license: Licence of what is made of the kernels, if they are the user's own.
        held_out: Fraction of the kernels for validation, and the same fraction for the test.
        seed: Seed of the split.
    """

    path: str = field(default="", metadata=INFORMS)
    sha256: str = field(default="", metadata=FIXED)
    license: str = field(default=UNLICENSED, metadata=ADDED)
    held_out: float = 0.1
    seed: int = 0

    @classmethod
    def of(cls, path: Path, license: str = UNLICENSED) -> "KernelFile":
        """Describes a file; raises FileNotFoundError if there is none."""
        _check_file(path)
        return cls(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), license=license)

    def other_inputs(self) -> dict[str, Any]:
        path = Path(self.path)
        beside = [path.parent / name for name in (DONE, LABELS)] if is_split(Path(self.path)) else []
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in beside if file.exists()}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        if is_split(Path(self.path)):
            return self._keep_split(folder)
        if not 0 < self.held_out < 0.5:
            raise ValueError(
                f"held_out, for validation and again for the test, must lie in (0, 0.5); got {self.held_out}"
            )
        kernels = read_kernels(Path(self.path))
        held_out = max(int(self.held_out * len(kernels)), 2)
        test, validation, train = shuffled(len(kernels), self.seed).tensor_split([held_out, 2 * held_out])
        split = KernelSet(kernels[train], kernels[validation], kernels[test], torch.full((held_out,), -1))
        split.save(folder)
        source = {"file": Path(self.path).name, "sha256": self.sha256, "split": "by kernel, at random"}
        source["license"] = self.license
        return {"kernels": split.counts(), "kept": 1.0, "source": source}

    def _keep_split(self, folder: Path) -> dict[str, Any]:
        path = Path(self.path)
        for key in ("held_out", "seed"):
            if getattr(self, key) != getattr(KernelFile, key):
                raise ValueError(
                    f"{path} is split already, so kernels.{key}={getattr(self, key)} has no effect; drop it"
                )
        kernels, done = read_split(path), read_done(path.parent)
        made = done.get("source", {})
        if self.license != UNLICENSED and made.keys().isdisjoint({"license", "file"}):
            raise ValueError(
                f"the licence of a prior of {path} follows from the networks that it is of, so --license "
                f"{self.license} has no effect; drop it, and enter those of a harvest in its manifest"
            )
        stated = {} if self.license == UNLICENSED else {"license": self.license}
        kernels.save(folder)
        if (path.parent / LABELS).exists():
            write_bytes(folder / LABELS, (path.parent / LABELS).read_bytes())
        source = {"file": f"{path.resolve().parent.name}/{path.name}", "file_sha256": self.sha256}
        kept: dict[str, Any] = {key: done[key] for key in ("kept", "norm_threshold") if key in done}
        return {"kernels": kernels.counts(), **kept, "source": made | source | stated}


def _check_file(path: Path) -> None:
    if not path.is_file():
        inside = path / KERNELS
        hint = (
            f"did you mean {inside}?" if inside.is_file() else "give a .npy or .safetensors file with kernels (n, k, k)"
        )
        raise FileNotFoundError(f"no kernel file {path}; {hint}")


def is_split(path: Path) -> bool:
    """Whether a file is the ``kernels.safetensors`` of a finished kernels stage or of a harvest."""
    return path.name == KERNELS and (path.parent / DONE).exists()


def read_split(path: Path) -> KernelSet:
    """Reads kernels that are split already.

    Raises:
        ValueError: The file is broken, lacks a part, or is not as its stage left it.
    """
    check_outputs(path.parent)
    try:
        return KernelSet.load(path.parent)
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f"{path}, next to a {DONE}, is not a complete file of {', '.join(PARTS)} and test_network ({error}); "
            "make it again"
        ) from error


def read_reference(path: Path) -> tuple[Tensor, Tensor]:
    """Reads kernels by which to evaluate priors.

    Args:
        path: ``kernels.safetensors`` of a kernels stage or a harvest, which has both parts, or what
            :func:`read_kernels` takes, which is split in two halves at random.

    Returns:
        The kernels with which samples are compared, and those whose log p counts.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for :func:`read_kernels`.
    """
    _check_file(path)
    if is_split(path):
        split = read_split(path)
        return split.train, split.test
    kernels = read_kernels(path)
    order = shuffled(len(kernels), 0)
    return kernels[order[::2]], kernels[order[1::2]]


def read_kernels(path: Path) -> Tensor:
    """Reads kernels from a ``.npy`` or a one-tensor ``.safetensors`` file, as float32 ``(n, c, k, k)``.

    Raises:
        ValueError: The file is unreadable, or its shape, type or values are not those of kernels.
    """
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"a kernel file ends in .npy or .safetensors; got {path.name!r}")
    try:
        if path.suffix == ".npy":
            tensors = {"kernels": torch.from_numpy(np.load(path, allow_pickle=False))}
        else:
            tensors = load_file(path)
    except Exception as error:  # the readers meet arbitrary bytes, and raise what they lead to
        raise ValueError(f"{path} cannot be read ({error}); save kernels (n, k, k) with numpy.save") from error
    if len(tensors) != 1:
        hint = f"; to keep its parts, put the {DONE} of its folder next to it" if set(PARTS) <= set(tensors) else ""
        raise ValueError(
            f"{path} holds {len(tensors)} tensors ({', '.join(tensors)}); it must hold one, (n, k, k){hint}"
        )
    kernels = next(iter(tensors.values()))
    if not kernels.is_floating_point():
        raise ValueError(f"{path} holds {kernels.dtype} values; kernels are floating-point numbers")
    shape = tuple(kernels.shape)
    if len(shape) not in (3, 4) or shape[-2] != shape[-1] or shape[-1] < 2 or 0 in shape[1:]:
        raise ValueError(f"{path} has shape {shape}; kernels have shape (n, k, k) or (n, c, k, k), k 2 or more")
    if len(kernels) < 10:
        raise ValueError(f"{path} holds {len(kernels)} kernels; a fit with held-out parts needs 10 or more")
    kernels = kernels.float().reshape(len(kernels), -1, *shape[-2:])
    wrong = (~kernels.isfinite()).flatten(1).any(1).sum().item()
    if wrong:
        raise ValueError(f"{wrong} of {len(kernels)} kernels of {path} hold NaN or, in float32, infinity; remove them")
    return kernels.contiguous()
