"""Starts that initialise whole networks, layers that are not convolutions included, by the package ``anyinit``."""

from collections.abc import Mapping
from functools import partial

import torch

from training.starts.base import Draw, Start, add_start, spatial_convolutions

ANYINIT_NORMAL, ANYINIT_SINUSOIDAL = "anyinit, normal", "anyinit, sinusoidal"


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
    spatial = spatial_convolutions(draw.network)
    if len(draw.layers) < len(spatial):
        raise ValueError(
            f"{draw.start!r} initialises whole networks, but layers= asks for {len(draw.layers)} of the {len(spatial)} "
            "spatial convolutions; leave layers= away"
        )
    before = {name: layer.weight.detach().clone() for name, layer in spatial.items()}
    anyinit.initialize(draw.network, distribution=distribution, seed=draw.seed)
    changed = [name for name, layer in spatial.items() if not torch.equal(layer.weight, before[name])]
    if not changed:
        raise ValueError(
            f"{draw.start!r} changed none of the {len(spatial)} spatial convolutions of this network; leave it out"
        )
    return dict.fromkeys(changed, 1.0)


anyinit_start = partial(Start, needs=(), keeps_rest=True)
normal, sinusoidal = (partial(by_anyinit, distribution=each) for each in ("normal", "sinusoidal"))
add_start(anyinit_start(ANYINIT_NORMAL, "anyinit, normal", "#558b2f", fill=normal))
add_start(anyinit_start(ANYINIT_SINUSOIDAL, "anyinit, sinusoidal", "#aed581", fill=sinusoidal))
