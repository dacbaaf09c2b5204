"""Starts from the weights of others: eight depthwise filters, and a trained network of the same architecture."""

from collections.abc import Mapping
from functools import partial

import torch
from safetensors.torch import load_file
from torch import nn

import dwp_init
from dwp_init.priors import KernelDensity
from training.kernels.checkpoints import natural
from training.kernels.master_filters import FILTERS_FILE, master_filters
from training.kernels.source_file import SourceFile
from training.starts.base import CIFAR10, IMAGENET, ConvLayer, Draw, Start, add_start, kind_of
from training.starts.natural import as_applied

MASTER_FILTERS, TRAINED_NETWORK = "master filters", "trained network"
NETWORK_FILE = SourceFile(
    "cifar10_resnet20.safetensors",
    "4bd0748a6b90ae7d445e63554a9fe705efdafdebfb77db9186df99173a0699be",
    "https://github.com/akamaster/pytorch_resnet_cifar10 (BSD-2), pretrained_models at d5489e8: the spatial "
    "convolutions of ResNet-20, as safetensors",
)


def with_random_signs(draw: Draw) -> Mapping[str, float]:
    """Gives each kernel of the depthwise layers one of the filters, with a random sign, at the layer's response.

    Kernels of other sizes are resampled. All other layers stay as they are. The filters keep their means.

    Raises:
        ValueError: There are no depthwise layers.
    """
    if not any(kind_of(layer) == "depthwise" for layer in draw.layers.values()):
        raise ValueError(
            f"{draw.start!r} are for depthwise layers, and the network has {len(draw.layers)} dense and no depthwise "
            "layers; leave them out"
        )
    filters = master_filters(draw.files[0])
    prior = KernelDensity((1, 7, 7), 2 * len(filters)).fit_(torch.cat([filters, -filters]))
    prior_set = dwp_init.PriorSet(depthwise=(prior,), name=draw.start)
    return as_applied(draw, prior=prior_set, noise=False, resize=True, seed=draw.other_seed)


@torch.no_grad()
def in_place(draw: Draw) -> Mapping[str, float]:
    """Copies the kernels of a ResNet-20 trained on CIFAR-10 into a network of its architecture, at their own scale.

    Raises:
        ValueError: The network's spatial convolutions have other shapes, or stand in another order.
    """
    kernels = load_file(draw.files[0])
    trained = [kernels[name] for name in sorted(kernels, key=natural)]
    theirs, ours = [tuple(kernel.shape) for kernel in trained], list(map(_shape, draw.layers.values()))
    if ours != theirs:
        raise ValueError(
            f"{draw.start!r} is the ResNet-20 of {draw.files[0].name}, with {_listed(theirs)}; the network has "
            f"{_listed(ours)}: take resnet with filters=(16, 32, 64), or leave this start out"
        )
    for layer, kernel in zip(draw.layers.values(), trained, strict=True):
        layer.weight.copy_(kernel)
    return dict.fromkeys(draw.layers, 1.0)


def _shape(layer: ConvLayer) -> tuple[int, ...]:
    """The shape of a layer's weight; empty where it is transposed, because the trained network has no such layers."""
    return tuple(layer.weight.shape) if isinstance(layer, nn.Conv2d) else ()


def _listed(shapes: list[tuple[int, ...]]) -> str:
    texts = ["×".join(map(str, shape)) or "transposed" for shape in shapes]
    return f"{len(texts)} spatial convolutions, {', '.join(texts[:2])} … {texts[-1]}"


eight_filters = partial(Start, needs=("files",), trained_on=IMAGENET, keeps_rest=True, files=(FILTERS_FILE,))
add_start(eight_filters(MASTER_FILTERS, "master filters", "#ff7043", fill=with_random_signs))
resnet20 = partial(Start, needs=("files",), trained_on=CIFAR10, files=(NETWORK_FILE,))
add_start(resnet20(TRAINED_NETWORK, "trained network", "#3e2723", fill=in_place))
