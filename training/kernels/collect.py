"""Kernel data sets: the kernels of one layer of many source networks, small ones dropped, split by network."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dwp_init.files import write_bytes
from training.engine.stage import DONE, FIXED, Context, Stage, check_counts, read_config, read_done
from training.images.own import is_own, short_name
from training.kernels.checkpoints import Checkpoint
from training.kernels.convolutions import read_layers
from training.kernels.sources import network_file

KERNELS = "kernels.safetensors"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class KernelSet:
    """Kernels ``(n, c, k, k)`` for fitting, for model selection and for the figures that are reported.

    ``test_network`` is ``(n,)``: which network each test kernel comes from, -1 where that is unknown.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    test_network: Tensor

    def save(self, folder: Path) -> None:
        write_bytes(folder / KERNELS, self.packed())

    def packed(self) -> bytes:
        """Returns what the file holds."""
        return save({name: value.contiguous() for name, value in vars(self).items()})

    @classmethod
    def load(cls, folder: Path) -> "KernelSet":
        return cls(**load_file(folder / KERNELS))

    @classmethod
    def together(cls, sets: Sequence["KernelSet"]) -> "KernelSet":
        """Puts the kernels of several layers of the same networks into one set, part by part."""
        return cls(**{name: torch.cat([getattr(one, name) for one in sets]) for name in vars(sets[0])})

    def counts(self) -> dict[str, int]:
        return {part: len(getattr(self, part)) for part in PARTS}


@dataclass(frozen=True)
class Kernels(Stage):
    """Collects one layer's kernels from the networks of a :class:`training.kernels.sources.Sources` stage.

    Dropped are kernels whose Euclidean norm is below ``min_norm`` times the 95 % quantile of the fitting networks'
    norms: L2 drives unused kernels to zero, and the paper leaves those out too (Section 3.3), by a rule it does not
    give. Whole networks are held out: the last ``test_networks``, and before them ``validation_networks``.

    Args:
        needs: The stage with the networks.
        layer: The convolution's name.
        min_norm: The threshold, as a fraction.
        validation_networks: Networks for model selection.
        test_networks: Networks for the reported figures.
        per_network: Kernels taken of each network at most, at random; all by default.
    """

    needs: tuple[str, ...] = ("sources",)
    layer: str = "features.conv1"
    min_norm: float = 0.25
    validation_networks: int = 12
    test_networks: int = 16
    per_network: int | None = None

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        source_folder = context.out / self.needs[0]
        source = read_config(source_folder)
        settings = source["settings"]
        seeds = range(settings["first_seed"], settings["first_seed"] + settings["networks"])
        held_out = self.validation_networks + self.test_networks
        if min(self.validation_networks, self.test_networks) < 1 or len(seeds) <= held_out:
            raise ValueError(
                f"{len(seeds)} networks cannot leave {self.validation_networks} for validation, {self.test_networks} "
                "for the test and some to fit; lower kernels' validation_networks and test_networks (1 or more each)"
            )
        if self.per_network is not None:
            check_counts(per_network=self.per_network)
        layers = [self._read_layer(network_file(source_folder, seed), seed) for seed in seeds]
        first_test, first_validation = len(seeds) - self.test_networks, len(seeds) - held_out
        threshold = self._threshold(layers[:first_validation])
        kept = [layer[layer.flatten(1).norm(dim=1) >= threshold] for layer in layers]
        network = [torch.full((len(layer),), seed) for seed, layer in zip(seeds, kept, strict=True)]
        kernels = KernelSet(
            torch.cat(kept[:first_validation]),
            torch.cat(kept[first_validation:first_test]),
            torch.cat(kept[first_test:]),
            torch.cat(network[first_test:]),
        )
        if min(kernels.counts().values()) < 2:
            raise ValueError(
                f"of norm ≥ {threshold:.4g}, min_norm={self.min_norm} times the 95 % quantile, there are "
                f"{kernels.counts()} kernels; each part needs 2 or more: lower min_norm or train more networks"
            )
        kernels.save(folder)
        return {
            "kernels": kernels.counts(),
            "kept": round(sum(map(len, kept)) / sum(map(len, layers)), 4),
            "norm_threshold": round(threshold, 5),
            "source": {
                "dataset": short_name(settings["data"]) if is_own(settings["data"]) else settings["data"],
                "images": source["data"][settings["data"]]["train"]["images"],
                "synthetic": source["data"][settings["data"]]["train"]["synthetic"],
                "layer": self.layer,
                "kind": self._kind(network_file(source_folder, seeds[0])),
                **{key: settings[key] for key in (*_RECIPE_KEYS, "first_seed")},
                "held_out_networks": {"validation": self.validation_networks, "test": self.test_networks},
                "test_accuracy_mean": read_done(source_folder)["test_accuracy_mean"],
                "made_with": read_done(source_folder)["made_with"],
            },
        }

    def _read_layer(self, path: Path, seed: int) -> Tensor:
        weights = load_file(path)
        layers = [name.removesuffix(".weight") for name, value in weights.items() if value.dim() == 4]
        if self.layer not in layers:
            raise ValueError(f"the networks have no convolution {self.layer!r}; they have {', '.join(sorted(layers))}")
        weight = weights[f"{self.layer}.weight"]
        if not weight.isfinite().all():
            raise ValueError(f"{self.layer} of {path} holds NaN or infinite values; train it anew with a lower lr")
        kernels = self._cut(weight.float())
        picked = torch.randperm(len(kernels), generator=torch.Generator().manual_seed(seed))[: self.per_network]
        return kernels[picked.sort().values]

    def _kind(self, path: Path) -> str:
        """Returns which of ``dwp_init.layers.KINDS`` the layer is; empty where its weight does not tell."""
        checkpoint = Checkpoint(path.name, (path,))
        found, _ = read_layers(checkpoint, checkpoint.entries())
        return next((layer.kind for layer, _ in found if layer.name == f"{self.layer}.weight"), "")

    def _cut(self, weight: Tensor) -> Tensor:
        """Cuts a weight ``(out, in, k, k)`` into kernels ``(n, c, k, k)``: one per pair of channels (Eq. 5)."""
        return weight.flatten(0, 1)[:, None]

    def _threshold(self, layers: list[Tensor]) -> float:
        norms = torch.cat([layer.flatten(1).norm(dim=1) for layer in layers])
        return self.min_norm * float(np.quantile(norms.numpy(), 0.95))


@dataclass(frozen=True)
class JointKernels(Kernels):
    """Collects kernels of all input channels together, ``(in, k, k)``, as those of a colour stem belong."""

    def _cut(self, weight: Tensor) -> Tensor:
        return weight


_RECIPE_KEYS = [
    "network",
    "filters",
    "networks",
    "epochs",
    "batch_size",
    "lr",
    "l2",
    "precision",
    "init_scale",
    "first_seed",
]


@dataclass(frozen=True)
class KernelFile(Stage):
    """Reads kernels of a user's own and splits them at random, for no network is known.

    Those of a finished kernels stage or of a harvest are split already, and stay so.

    Args:
        path: ``.npy``, or ``.safetensors`` with one tensor, ``(n, k, k)`` or ``(n, c, k, k)``; or a stage's
            ``kernels.safetensors``.
        sha256: Digest of the file, part of the stage's identity.
        held_out: Fraction of the kernels for validation, and again for the test.
        seed: Of the split.
    """

    path: str = field(default="", metadata=FIXED)
    sha256: str = field(default="", metadata=FIXED)
    held_out: float = 0.1
    seed: int = 0

    @classmethod
    def of(cls, path: Path) -> "KernelFile":
        """Describes a file; raises FileNotFoundError if there is none."""
        if not path.is_file():
            raise FileNotFoundError(f"no kernel file {path}; give a .npy or .safetensors file with kernels (n, k, k)")
        return cls(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def other_inputs(self) -> dict[str, Any]:
        path = Path(self.path)
        return {DONE: hashlib.sha256((path.parent / DONE).read_bytes()).hexdigest()} if is_split(path) else {}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        if is_split(Path(self.path)):
            return self._keep_split(folder)
        if not 0 < self.held_out < 0.5:
            raise ValueError(f"held_out, for validation and again for the test, lies in (0, 0.5); got {self.held_out}")
        kernels = read_kernels(Path(self.path))
        order = torch.randperm(len(kernels), generator=torch.Generator().manual_seed(self.seed))
        held_out = max(int(self.held_out * len(kernels)), 2)
        test, validation, train = order.split([held_out, held_out, len(kernels) - 2 * held_out])
        split = KernelSet(kernels[train], kernels[validation], kernels[test], torch.full((held_out,), -1))
        split.save(folder)
        source = {"file": Path(self.path).name, "sha256": self.sha256, "split": "by kernel, at random"}
        return {"kernels": split.counts(), "kept": 1.0, "source": source}

    def _keep_split(self, folder: Path) -> dict[str, Any]:
        path = Path(self.path)
        for key in ("held_out", "seed"):
            if getattr(self, key) != getattr(KernelFile, key):
                raise ValueError(
                    f"{path} is split already, so kernels.{key}={getattr(self, key)} has no effect; drop it"
                )
        kernels, done = read_split(path), read_done(path.parent)
        kernels.save(folder)
        source = {"file": f"{path.resolve().parent.name}/{path.name}", "file_sha256": self.sha256}
        kept = {key: done[key] for key in ("kept", "norm_threshold") if key in done}
        return {"kernels": kernels.counts(), **kept, "source": done.get("source", {}) | source}


def is_split(path: Path) -> bool:
    """Whether a file is the ``kernels.safetensors`` of a finished kernels stage, or of a harvest."""
    return path.name == KERNELS and (path.parent / DONE).exists()


def read_split(path: Path) -> KernelSet:
    """Reads kernels that are split already.

    Raises:
        ValueError: The file is broken, or holds no such parts.
    """
    try:
        return KernelSet.load(path.parent)
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f"{path} is no whole file of {', '.join(PARTS)} and test_network ({error}), though beside a {DONE}; "
            "make it anew"
        ) from error


def read_reference(path: Path) -> tuple[Tensor, Tensor]:
    """Reads kernels to judge priors by: those to compare samples with, and those whose log p counts.

    Args:
        path: ``kernels.safetensors`` of a kernels stage or a harvest, which has both parts, or what
            :func:`read_kernels` takes, which is split in two halves at random.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: What :func:`read_kernels` raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no kernel file {path}; give a .npy or .safetensors file with kernels (n, k, k)")
    if is_split(path):
        kernels = read_split(path)
        return kernels.train, kernels.test
    kernels = read_kernels(path)
    order = torch.randperm(len(kernels), generator=torch.Generator().manual_seed(0))
    return kernels[order[::2]], kernels[order[1::2]]


def read_kernels(path: Path) -> Tensor:
    """Reads kernels from a ``.npy`` or a one-tensor ``.safetensors`` file, as float32 ``(n, c, k, k)``.

    Raises:
        ValueError: The file is unreadable, or the shape, the type or the values are no kernels.
    """
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"a kernel file ends in .npy or .safetensors; got {path.name!r}")
    try:
        if path.suffix == ".npy":
            tensors = {"kernels": torch.from_numpy(np.load(path, allow_pickle=False))}
        else:
            tensors = load_file(path)
    except (SafetensorError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); save kernels (n, k, k) with numpy.save") from error
    if len(tensors) != 1:
        hint = f"; to keep its parts, put the {DONE} of its folder beside it" if set(PARTS) <= set(tensors) else ""
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
