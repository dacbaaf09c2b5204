"""Small networks of every kind of convolution, priors and learned kernels for them, and a function that starts one."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dwp_init import GaussianMixture
from training.kernels.source_file import SourceFile
from training.networks.image_vae import ImageVAE
from training.networks.modern import ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.paper import CIFARNet, MNISTNet
from training.starts.base import LEARNED_KINDS, STARTS, Learned, initialize_

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mnist": lambda: MNISTNet((6, 8)),
    "cifar": lambda: CIFARNet((6, 8, 8)),
    "vae": ImageVAE,
    "resnet": lambda: ResNet((4, 8), blocks=1),
    "convmixer": lambda: ConvMixer((6,), blocks=2),
    "convnext": lambda: ConvNeXt((6, 8), blocks=1),
    "mobilenet": lambda: MobileNet((4, 6, 8), blocks=1),
}
WITHOUT_DEPTHWISE = ("mnist", "cifar", "vae", "resnet")
UNSUITED = {  # networks that a start refuses
    "Kaiming, 1×1 too": ("mnist", "cifar", "vae"),
    "master filters": WITHOUT_DEPTHWISE,
    "natural-v1, means kept": WITHOUT_DEPTHWISE,
    "natural-v1, resized": ("mnist", "cifar", "vae", "resnet", "mobilenet"),
    "natural, resized": ("mnist", "cifar", "vae", "resnet", "mobilenet"),
    "trained network": tuple(name for name in NETWORKS if name != "resnet"),
}


def smooth_kernels(k: int, n: int = 40) -> Tensor:
    return torch.randn(n, 1, k, k, generator=torch.Generator().manual_seed(k)).cumsum(-1)


@pytest.fixture(scope="session")
def priors() -> list[GaussianMixture]:
    generator = torch.Generator().manual_seed(0)
    return [GaussianMixture((1, k, k), 3).fit_(smooth_kernels(k), generator=generator) for k in (7, 5, 3)]


@pytest.fixture(scope="session")
def learned() -> Learned:
    by_depth = {k: {0.0: smooth_kernels(k), 1.0: -smooth_kernels(k)} for k in (7, 5, 3)}
    return {(kind, k): found for kind in LEARNED_KINDS for k, found in by_depth.items()}


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def master_filters() -> Tensor:
    return torch.randn(8, 1, 7, 7, generator=torch.Generator().manual_seed(3)).mul(1e3).round().div(1e3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files as the starts expect them, for the network ``resnet``, in place of those of record."""
    blocks = [
        f"Filter {n}:\n" + "\n".join(" ".join(f"{x:.3f}" for x in row) for row in filters[0].tolist())
        for n, filters in enumerate(master_filters(), 1)
    ]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "master_filters.txt").write_text("\n\n".join(blocks), encoding="utf-8")
    shapes = [(4, 3), (4, 4), (4, 4), (8, 4), (8, 8)]
    kernels = {f"layer{n + 8}.weight": torch.full((*shape, 3, 3), n + 1.0) for n, shape in enumerate(shapes)}
    save_file(kernels, tmp_path / "cifar10_resnet20.safetensors")
    for start in ("master filters", "trained network"):
        path = next(tmp_path.rglob(STARTS[start].files[0].name))
        file = SourceFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "https://example.org")
        monkeypatch.setitem(STARTS, start, replace(STARTS[start], files=(file,)))
    return tmp_path


@pytest.fixture
def make(priors: list[GaussianMixture], learned: Learned, images: Tensor, folder: Path) -> Callable[..., nn.Module]:
    """Builds a network by name and initialises it by a start; options replace what it may draw from.

    The share that the start drew is kept as ``drawn``.
    """

    def made(network: str, start: str, seed: int = 0, **options: object) -> nn.Module:
        def again(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return NETWORKS[network]()

        batch = images[:, :1, :28, :28] if network in ("mnist", "vae") else images
        built = again(seed)
        before = torch.get_rng_state()
        sources = {"priors": priors, "learned": learned, "batch": batch, "again": again, "folder": folder}
        built.drawn = initialize_(built, start, seed, **sources | options)
        assert torch.equal(torch.get_rng_state(), before)
        return built

    return made
