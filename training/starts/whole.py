"""Starts of whole networks: of all convolutions, and of all layers by the package ``anyinit``."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from training.starts.base import KAIMING, ConvLayer, Draw, Start, add_start, each, spatial_convolutions
from training.starts.controls import kaiming

ANYINIT_NORMAL, ANYINIT_SINUSOIDAL = "anyinit, normal", "anyinit, sinusoidal"
KAIMING_TOO = "Kaiming, 1×1 too"


def kaiming_everywhere(draw: Draw) -> Mapping[str, float]:
    """Fills all convolutions by Kaiming's law, those with 1×1 kernels too, also a last one without a ReLU behind it.

    Raises:
        ValueError: Only some of the spatial convolutions are to be filled, or there is none of 1×1.
    """
    _check_whole(draw)
    layers = {name: module for name, module in draw.network.named_modules() if isinstance(module, ConvLayer)}
    if len(layers) == len(draw.layers):
        raise ValueError(
            f"{draw.start!r} differs from {KAIMING!r} in 1×1 layers, but the network has none; leave it out"
        )
    return each(kaiming)(replace(draw, layers=layers))


def by_anyinit(draw: Draw, distribution: str) -> Mapping[str, float]:
    """Initialises all layers by :func:`anyinit.initialize`, which propagates moments and needs no images.

    Linear layers, biases and the gains of normalisations change too, so this is more than a start of convolutions.

    Args:
        draw: The draw.
        distribution: ``normal`` or ``sinusoidal``.

    Raises:
        ImportError: The package is not installed.
        ValueError: Only some of the convolutions are to be filled, or the package changes none of them.
    """
    try:
        import anyinit
    except ImportError as error:
        raise ImportError(
            f"{draw.start!r} is in a package of its own: pip install 'anyinit>=0.4', or leave it out"
        ) from error
    _check_whole(draw)
    spatial = spatial_convolutions(draw.network)
    before = {name: layer.weight.detach().clone() for name, layer in spatial.items()}
    anyinit.initialize(draw.network, distribution=distribution, seed=draw.seed)
    changed = [name for name, layer in spatial.items() if not torch.equal(layer.weight, before[name])]
    if not changed:
        raise ValueError(
            f"{draw.start!r} changed none of the {len(spatial)} spatial convolutions of this network; leave it out"
        )
    return dict.fromkeys(changed, 1.0)


def _check_whole(draw: Draw) -> None:
    spatial = spatial_convolutions(draw.network)
    if len(draw.layers) < len(spatial):
        raise ValueError(
            f"{draw.start!r} initialises whole networks, but layers= asks for {len(draw.layers)} of the {len(spatial)} "
            "spatial convolutions; leave layers= away"
        )


add_start(Start(KAIMING_TOO, "Kaiming, 1×1 too", "#145a32", (), kaiming_everywhere))
anyinit_start = partial(Start, needs=(), keeps_rest=True)
normal, sinusoidal = (partial(by_anyinit, distribution=each) for each in ("normal", "sinusoidal"))
add_start(anyinit_start(ANYINIT_NORMAL, "anyinit, normal", "#558b2f", fill=normal))
add_start(anyinit_start(ANYINIT_SINUSOIDAL, "anyinit, sinusoidal", "#aed581", fill=sinusoidal))
