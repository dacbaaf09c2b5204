"""Networks by name: those of the paper, small modern ones, and those of the package timm."""

import difflib
from collections.abc import Callable

from torch import nn

from training.networks.modern import VGG, ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.paper import CIFARNet, CIFARSource, ImageShape, MNISTNet

TIMM = "timm:"  # what the name of a network of timm begins with


def _resnet_7x7(filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> ResNet:
    """A ResNet with one block in each stage, so that every layer has a different depth, and a 7×7 stem."""
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
    """Builds an untrained network.

    Args:
        name: A name of ``NETWORKS``, or ``timm:NAME``, such as ``timm:resnet18``, for a network of timm.
        filters: Numbers of channels, see the network's class. They must be empty for networks of timm, whose names
            contain the width where there is a choice, as in ``timm:mobilenetv3_small_050``.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.

    Raises:
        ValueError: There is no network of that name, or ``filters`` or the images do not suit it.
        ImportError: The name begins with ``timm:``, and timm is not installed.
    """
    if name.startswith(TIMM):
        return _build_timm(name, filters, classes, image_shape[0])
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}, and {TIMM}NAME for those of timm")
    if not filters or min(filters) < 1:
        raise ValueError(f"filters are numbers of channels, 1 or more each; got {tuple(filters)}")
    return NETWORKS[name](tuple(filters), classes, image_shape)


def _build_timm(name: str, filters: tuple[int, ...], classes: int, channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name!r} needs the package timm; install it with: pip install 'dwp_init[timm]'") from error
    model = name.removeprefix(TIMM)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(TIMM + match for match in near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm has no network {model!r}; {hint}")
    if filters:
        raise ValueError(
            f"{name!r} takes no filters, because the names of timm contain the width where there is a choice, as in "
            f"{TIMM}mobilenetv3_small_050; got {tuple(filters)}, expected ()"
        )
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=classes, in_chans=channels)
    return network
