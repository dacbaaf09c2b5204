"""Kernels of one layer of many source networks: small ones are dropped, and whole networks are held out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.engine.options import check_counts
from training.engine.records import read_config, read_done
from training.engine.stage import Context, Stage
from training.images.own import data_of
from training.kernels.checkpoints import Checkpoint, network_file
from training.kernels.convolutions import read_convolutions
from training.kernels.kernelset import KernelSet, norm_threshold, shuffled

# settings of the source networks that are recorded with the kernels
_RECIPE_KEYS = ("network", "filters", "networks", "epochs", "batch_size", "lr", "l2", "precision", "init_scale")


@dataclass(frozen=True)
class Kernels(Stage):
    """Collects one layer's kernels from the networks of a :class:`training.kernels.sources.Sources` stage.

    Kernels are dropped if their Euclidean norm is below ``min_norm`` times the 95 % quantile of the norms in the
    fitting networks. L2 drives unused kernels to zero; the paper leaves those out too (Section 3.3), by a rule that it
    does not give. Whole networks are held out: the last ``test_networks``, and before them ``validation_networks``.

    Args:
        needs: The stage with the networks.
        layer: Name of the convolution.
        min_norm: The threshold, as a fraction.
        validation_networks: Number of networks for model selection.
        test_networks: Number of networks for the reported figures.
        per_network: Maximum number of kernels taken from each network, at random; all by default.
    """

    needs: tuple[str, ...] = ("sources",)
    layer: str = "features.conv1"
    min_norm: float = 0.25
    validation_networks: int = 12
    test_networks: int = 16
    per_network: int | None = None

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        sources = context.out / self.needs[0]
        settings = read_config(sources)["settings"]
        seeds = range(settings["first_seed"], settings["first_seed"] + settings["networks"])
        held_out = self.validation_networks + self.test_networks
        if min(self.validation_networks, self.test_networks) < 1 or len(seeds) <= held_out:
            raise ValueError(
                f"{len(seeds)} networks cannot leave {self.validation_networks} for validation, {self.test_networks} "
                "for the test and some to fit; lower kernels' validation_networks and test_networks (1 or more each)"
            )
        if self.per_network is not None:
            check_counts(per_network=self.per_network)
        layers = {seed: self._read_layer(network_file(sources, seed), seed) for seed in seeds}
        norms = {seed: layer.flatten(1).norm(dim=1) for seed, layer in layers.items()}
        threshold = norm_threshold(torch.cat([norms[seed] for seed in seeds[:-held_out]]), self.min_norm)
        kept = {seed: layer[norms[seed] >= threshold] for seed, layer in layers.items()}
        kernels = self._split(kept)
        if min(kernels.counts().values()) < 2:
            raise ValueError(
                f"of norm ≥ {threshold:.4g}, min_norm={self.min_norm} times the 95 % quantile, there are "
                f"{kernels.counts()} kernels; each part needs 2 or more: lower min_norm or train more networks"
            )
        kernels.save(folder)
        return {
            "kernels": kernels.counts(),
            "kept": round(sum(map(len, kept.values())) / sum(map(len, layers.values())), 4),
            "norm_threshold": round(threshold, 5),
            "source": self._describe(sources),
        }

    def _read_layer(self, path: Path, seed: int) -> Tensor:
        weights = load_file(path)
        layers = [name.removesuffix(".weight") for name, value in weights.items() if value.dim() == 4]
        if self.layer not in layers:
            raise ValueError(f"the networks have no convolution {self.layer!r}; they have {', '.join(sorted(layers))}")
        weight = weights[f"{self.layer}.weight"]
        if not weight.isfinite().all():
            raise ValueError(f"{self.layer} of {path} holds NaN or infinite values; train it again with a lower lr")
        kernels = self._cut(weight.float())
        return kernels[shuffled(len(kernels), seed)[: self.per_network].sort().values]

    def _cut(self, weight: Tensor) -> Tensor:
        """Cuts a weight ``(out, in, k, k)`` into kernels ``(n, c, k, k)``: one per pair of channels (Eq. 5)."""
        return weight.flatten(0, 1)[:, None]

    def _split(self, layers: dict[int, Tensor]) -> KernelSet:
        """Splits the kernels by network; ``layers`` holds those of each network, by its seed."""
        kernels = list(layers.values())
        first_test = len(kernels) - self.test_networks
        first_validation = first_test - self.validation_networks
        return KernelSet(
            torch.cat(kernels[:first_validation]),
            torch.cat(kernels[first_validation:first_test]),
            torch.cat(kernels[first_test:]),
            torch.cat([torch.full((len(layer),), seed) for seed, layer in list(layers.items())[first_test:]]),
        )

    def _describe(self, sources: Path) -> dict[str, Any]:
        config, done = read_config(sources), read_done(sources)
        settings = config["settings"]
        data = config["data"][settings["data"]]["train"]
        return {
            **data_of(settings["data"]),
            "images": data["images"],
            "synthetic": data["synthetic"],
            "layer": self.layer,
            "kind": self._kind(network_file(sources, settings["first_seed"])),
            **{key: settings[key] for key in (*_RECIPE_KEYS, "first_seed")},
            "held_out_networks": {"validation": self.validation_networks, "test": self.test_networks},
            "test_accuracy_mean": done["test_accuracy_mean"],
            "made_with": done["made_with"],
        }

    def _kind(self, path: Path) -> str:
        """Returns which of ``LAYER_KINDS`` the layer is; empty where its weight does not tell."""
        checkpoint = Checkpoint(path.name, (path,))
        found, _ = read_convolutions(checkpoint, checkpoint.entries())
        return next((layer.kind for layer, _ in found if layer.name == f"{self.layer}.weight"), "")


@dataclass(frozen=True)
class JointKernels(Kernels):
    """Collects kernels of all input channels together, ``(in, k, k)``, for a colour stem."""

    def _cut(self, weight: Tensor) -> Tensor:
        return weight
