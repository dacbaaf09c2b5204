"""Networks by name."""

from collections.abc import Callable

from torch import nn

from training.networks.modern import VGG, ConvMixer, ConvNeXt, ImageShape, MobileNet, ResNet
from training.networks.paper import CIFARNet, CIFARSource, MNISTNet


def _resnet_7x7(filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> ResNet:
    """A ResNet with one block in each stage, so that every layer has a depth of its own, and a 7×7 stem."""
    return ResNet(filters, classes, image_shape, blocks=1, stem=7)


NETWORKS: dict[str, Callable[[tuple[int, ...], int, ImageShape], nn.Module]] = {
    "mnist": MNISTNet,
    "cifar": CIFARNet,
    "cifar-source": CIFARSource,
    "resnet": ResNet,
    "resnet-7x7-stem": _resnet_7x7,
    "convmixer": ConvMixer,
    "convnext": ConvNeXt,
    "mobilenet": MobileNet,
    "vgg": VGG,
}


def build(name: str, filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> nn.Module:
    """Builds a network of ``NETWORKS``, untrained, for images of one size.

    Raises:
        ValueError: There is none of that name, or ``filters`` or the images do not suit it.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    if not filters or min(filters) < 1:
        raise ValueError(f"filters are numbers of channels, 1 or more each; got {tuple(filters)}")
    return NETWORKS[name](tuple(filters), classes, image_shape)
