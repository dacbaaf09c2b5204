"""Hand-made state dicts whose kinds and depths are known."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> State:
    """Four layers in another order than their names', with what is no layer between them."""
    return {
        "block.10.conv.weight": normal(5, 4, 3, 3, seed=seed + 1),
        "block.2.conv.weight": 3 * normal(4, 6, 3, 3, seed=seed + 2),
        "block.3.depthwise.weight": normal(12, 1, 5, 5, seed=seed + 3),
        "stem.conv.weight": normal(16, 3, 7, 7, seed=seed + 4),
        "block.2.conv.bias": normal(4),
        "block.2.pointwise.weight": normal(4, 4, 1, 1),
        "head.weight": normal(10, 5),
    }


def networks_in_a_manifest(folder: Path, count: int = 3, **said: str) -> Path:
    """Writes networks, and a manifest that names them and says something of each; returns the manifest's path."""
    lines = []
    for i in range(count):
        file = folder / f"net{i}.safetensors"
        save_file(network(10 * i), file)
        fields = {"place": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} | said
        lines += ["[[source]]", *(f'{key} = "{value}"' for key, value in fields.items())]
    (folder / "sources.toml").write_text("\n".join(lines))
    return folder / "sources.toml"
