"""The kernels of one kind and size from the checkpoints of a manifest, as a stage of a recipe."""

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save

from dwp_init.storage import write_bytes
from training.engine.records import DONE, ROOT
from training.engine.stage import FIXED, Context, Stage
from training.kernels.groups import Settings
from training.kernels.harvest import harvest
from training.kernels.manifest import read_manifest

_SYNTHETIC_LAYERS = 4
_SYNTHETIC = {"stem": (16, 3), "dense": (16, 16)}  # outputs and inputs of a layer; others have one input


@dataclass(frozen=True)
class HarvestedKernels(Stage):
    """Harvests the kernels of one kind and size, as :func:`training.kernels.harvest.harvest` does, with their labels.

    Under ``--smoke`` nothing is fetched: each family of the manifest is a checkpoint of white noise.

    Args:
        manifest: Path of the manifest, from the root of the clone; its contents are part of the stage's identity.
        kind: One of :data:`training.kernels.kinds.LAYER_KINDS`.
        size: Size of the kernels.
        test: Patterns of the names of families to hold out for the test.
        per_layer: Maximum number of kernels taken from each tensor, at random.
        seed: Seed of the choice in each tensor, and of the split.
    """

    manifest: str = field(default="", metadata=FIXED)
    kind: str = "dense"
    size: tuple[int, ...] = (3, 3)
    test: tuple[str, ...] = ()
    per_layer: int = 2000
    seed: int = 0

    def other_inputs(self) -> dict[str, Any]:
        return {"manifest": hashlib.sha256((ROOT / self.manifest).read_bytes()).hexdigest()}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        settings = Settings(kind=self.kind, size=self.size, test=self.test, per_layer=self.per_layer, seed=self.seed)
        with tempfile.TemporaryDirectory() as scratch:
            source = self._synthetic(Path(scratch) / "synthetic") if context.smoke else ROOT / self.manifest
            found = harvest([str(source)], Path(scratch) / "harvest", settings, context.data_root).folders
            name = f"{self.kind}-{'x'.join(map(str, self.size))}"
            if name not in found:
                raise ValueError(
                    f"{self.manifest} has no {name} kernels, but {', '.join(found)}; mend kind and size, or its entries"
                )
            for path in sorted((Path(scratch) / "harvest" / name).iterdir()):
                if path.name != DONE:
                    write_bytes(folder / path.name, path.read_bytes())
        summary = found[name]
        return summary | {"source": summary["source"] | {"synthetic": context.smoke}}

    def _synthetic(self, folder: Path) -> Path:
        """Writes a checkpoint of random layers for each family of the manifest, under its name or that of its file."""
        folder.mkdir()
        for seed, origin in enumerate(read_manifest(ROOT / self.manifest)):
            generator = torch.Generator().manual_seed(seed)
            shape = (*_SYNTHETIC.get(self.kind, (32, 1)), *self.size)
            layers = {
                f"{self.kind}.{i}.weight": torch.randn(shape, generator=generator) for i in range(_SYNTHETIC_LAYERS)
            }
            write_bytes(folder / f"{origin.family or PurePosixPath(origin.place).name}.safetensors", save(layers))
        return folder
