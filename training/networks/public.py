"""Public models by name, untrained, and the inputs on which their activations are measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.networks.registry import TIMM, build

TORCHVISION, SEGMENTATION, DETECTION = "torchvision:", "torchvision-segmentation:", "torchvision-detection:"
LOSSES, EDSR_BLOCKS, CONTROLNET = "torchvision-losses:", "edsr:", "diffusers:controlnet"
COMMON = 0.9  # share of the variance of the channels of an image that is common to them, as in photographs


@dataclass(frozen=True)
class PublicModel:
    """A model and how to run it.

    Args:
        network: The model, in the mode in which it is run.
        run: Maps images ``(n, 3, size, size)`` to outputs, tensors in lists and dictionaries.
        size: Size of the images.
    """

    network: nn.Module
    run: Callable[[Tensor], Any]
    size: int


def build_public(name: str, seed: int, size: int) -> PublicModel:
    """Builds a model with random weights.

    Args:
        name: ``timm:NAME``; a name of torchvision behind ``TORCHVISION``, ``SEGMENTATION``, ``DETECTION`` for its
            backbone, or ``LOSSES`` for the losses of a detector in training mode on fixed targets; ``edsr:BLOCKS``; or
            ``CONTROLNET``.
        seed: Seed of the weights.
        size: Size of the images, unless the model has a fixed one.
    """
    torch.manual_seed(seed)
    if name.startswith((DETECTION, LOSSES)):
        return _detector(name, size)
    if name == CONTROLNET:
        return _controlnet(size)
    network = _network(name).eval()
    return PublicModel(network, network, _size(network, size))


def pink_images(count: int, size: int, seed: int) -> Tensor:
    """Returns noise with the amplitude spectrum 1/f of photographs, ``(count, 3, size, size)``, of mean 0, variance 1.

    The share ``COMMON`` of the variance of its channels is common to them.
    """
    generator = torch.Generator().manual_seed(seed)
    across = torch.fft.fftfreq(size)
    frequency = (across[:, None].square() + across.square()).sqrt()
    frequency[0, 0] = torch.inf
    white = torch.fft.fft2(torch.randn(count, 4, size, size, generator=generator))
    noise = torch.fft.ifft2(white / frequency).real
    noise = noise / noise.std((2, 3), keepdim=True)
    images: Tensor = COMMON**0.5 * noise[:, :1] + (1 - COMMON) ** 0.5 * noise[:, 1:]
    return images.div_(images.std((1, 2, 3), keepdim=True))


class EDSR(nn.Module):
    """The super-resolution network of Lim et al. (2017): residual blocks without normalisation, and a PixelShuffle.

    Args:
        blocks: Number of residual blocks.
        width: Channels.
        factor: Factor by which images are enlarged.
    """

    def __init__(self, blocks: int = 32, width: int = 64, factor: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(_Residual(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        self.enlarge = nn.Sequential(nn.Conv2d(width, factor**2 * width, 3, padding=1), nn.PixelShuffle(factor))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, 3, h, w)`` to ones of ``factor`` times the size."""
        features = self.head(images)
        enlarged: Tensor = self.tail(self.enlarge(features + self.body(features)))
        return enlarged


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(next(convolutions), nn.ReLU(), next(convolutions))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.body(x)
        return changed


def _network(name: str) -> nn.Module:
    if name.startswith(EDSR_BLOCKS):
        return EDSR(int(name.removeprefix(EDSR_BLOCKS)))
    if name.startswith(TIMM):
        return build(name, (), 1000, (3, 224, 224))
    from torchvision import models

    if name.startswith(SEGMENTATION):
        called = name.removeprefix(SEGMENTATION)
        made: nn.Module = models.get_model(called, weights=None, weights_backbone=None)
        return made
    options = {"init_weights": True} if name.endswith(("googlenet", "inception_v3")) else {}
    network: nn.Module = models.get_model(name.removeprefix(TORCHVISION), weights=None, **options)
    return network


def _size(network: nn.Module, size: int) -> int:
    """Returns the size of images that a model takes: its own where that is fixed."""
    config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    own = config.get("input_size", (3, size, size))[-1]
    return int(own) if config.get("fixed_input_size") else size


def _detector(name: str, size: int) -> PublicModel:
    from torchvision import models

    made: dict[str, Any] = {"weights": None, "weights_backbone": None}
    called = name.removeprefix(DETECTION).removeprefix(LOSSES)
    if "ssd" in called:
        size = 300 if "300" in called else 320  # as in its name
    else:
        made |= {"min_size": size, "max_size": size}
    network: Any = models.get_model(called, **made)
    if name.startswith(DETECTION):
        network.eval()
        return PublicModel(network, network.backbone, size)
    network.train()

    def losses(images: Tensor) -> Any:
        boxes = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.3, 0.3, 0.9, 0.8]]) * images.shape[-1]
        targets = [{"boxes": boxes, "labels": torch.tensor([1, 7])} for _ in images]
        with torch.random.fork_rng():
            torch.manual_seed(0)  # some detectors sample anchors
            return network(list(images), targets)

    return PublicModel(network, losses, size)


def _controlnet(size: int) -> PublicModel:
    from diffusers import ControlNetModel  # pyright: ignore[reportPrivateImportUsage]

    controlnet: Any = ControlNetModel
    network = controlnet(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        conditioning_embedding_out_channels=(16, 32),
    ).eval()

    def run(images: Tensor) -> Any:
        noisy = torch.cat([images, images[:, :1]], 1)[..., ::2, ::2]
        text = torch.randn(len(images), 4, 32, generator=torch.Generator().manual_seed(0))
        found = network(noisy, 10, text, controlnet_cond=images, return_dict=False)
        return [list(found[0]), found[1]]

    return PublicModel(network, run, size)
