"""Small networks of every kind of convolution, priors and learned kernels for them, and a function that starts one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dwp_init import KernelDensity
from training.networks.image_vae import ImageVAE
from training.networks.modern import ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.paper import CIFARNet, MNISTNet
from training.starts.base import LEARNED_KINDS, Learned, initialize_

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mnist": lambda: MNISTNet((6, 8)),
    "cifar": lambda: CIFARNet((6, 8, 8)),
    "vae": ImageVAE,
    "resnet": lambda: ResNet((4, 8), blocks=1),
    "convmixer": lambda: ConvMixer((6,), blocks=2),
    "convnext": lambda: ConvNeXt((6, 8), blocks=1),
    "mobilenet": lambda: MobileNet((4, 6, 8), blocks=1),
}


def smooth_kernels(k: int, n: int = 40) -> Tensor:
    return torch.randn(n, 1, k, k, generator=torch.Generator().manual_seed(k)).cumsum(-1)


@pytest.fixture(scope="session")
def priors() -> list[KernelDensity]:
    return [KernelDensity((1, k, k), 40).fit_(smooth_kernels(k)) for k in (7, 5, 3)]


@pytest.fixture(scope="session")
def learned() -> Learned:
    by_depth = {k: {0.0: smooth_kernels(k), 1.0: -smooth_kernels(k)} for k in (7, 5, 3)}
    return {(kind, k): found for kind in LEARNED_KINDS for k, found in by_depth.items()}


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make(priors: list[KernelDensity], learned: Learned, images: Tensor) -> Callable[..., nn.Module]:
    """Builds a network by name and initialises it by a start; options replace what it may draw from."""

    def made(network: str, start: str, seed: int = 0, **options: object) -> nn.Module:
        batch = images[:, :1, :28, :28] if network in ("mnist", "vae") else images
        torch.manual_seed(seed)
        built = NETWORKS[network]()
        before = torch.get_rng_state()
        initialize_(built, start, seed, **{"priors": priors, "learned": learned, "batch": batch} | options)
        assert torch.equal(torch.get_rng_state(), before)
        return built

    return made
