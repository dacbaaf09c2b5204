"""Starts from learned kernels: the kernels themselves, or the Gaussian of them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dwp_init import Gaussian
from training.kernels.kernelset import KernelSet
from training.starts.base import (
    LEARNED_KINDS,
    ConvLayer,
    Draw,
    Learned,
    Start,
    add_start,
    at_he_rms,
    kind_and_size,
    kind_of,
)

GAUSSIAN = "empirical Gaussian"
LEARNED, LEARNED_HE, LEARNED_OWN = "learned kernels", "learned kernels, He's RMS", "learned kernels, own scale"

Pick = Callable[[Tensor, int, torch.Generator], Tensor]


def learned_kernels(folders: Iterable[Path]) -> Learned:
    """Reads the kernels of several kernels stages, as those of dense layers at any depth.

    Args:
        folders: The stages' folders.

    Raises:
        ValueError: Two stages hold kernels of one size, or a stage holds kernels of several channels.
    """
    found: dict[tuple[str, int], dict[float, Tensor]] = {}
    for folder in folders:
        kernels = KernelSet.load(folder).train
        channels, k = kernels.shape[1:3]
        if channels != 1:
            raise ValueError(f"{folder.name} holds kernels of {channels} channels; single ones are drawn, of 1 channel")
        if (LEARNED_KINDS[0], k) in found:
            raise ValueError(f"{folder.name} is the second stage with {k}×{k} kernels; name one for each size in needs")
        found[LEARNED_KINDS[0], k] = {0.0: kernels}
    return found


@torch.no_grad()
def from_learned(draw: Draw, pick: Pick, own_scale: bool = False) -> Mapping[str, float]:
    """Fills each layer from the learned kernels of its kind and size, and of the nearest relative depth.

    Args:
        draw: The draw.
        pick: Makes as many kernels as asked for of those given, by a source of randomness.
        own_scale: Whether kernels keep their scale instead of He's.

    Raises:
        ValueError: There are no learned kernels for any layer.
    """
    fitting = {name: _fitting(layer, draw.learned) for name, layer in draw.layers.items()}
    if not any(fitting.values()):
        there = ", ".join(sorted({kind_and_size(layer) for layer in draw.layers.values()}))
        given = ", ".join(f"{kind} {k}×{k}" for kind, k in draw.learned)
        raise ValueError(f"no layer can be initialised: the network has {there} kernels, the learned ones are {given}")
    filled: dict[str, float] = {}
    for place, (name, by_depth) in enumerate(fitting.items()):
        if not by_depth:
            continue
        layer, depth = draw.layers[name], place / max(len(fitting) - 1, 1)
        kernels = by_depth[min((abs(known - depth), known) for known in by_depth)[1]]
        drawn = pick(kernels, layer.weight[:, :, 0, 0].numel(), draw.generator(name)).reshape(layer.weight.shape)
        layer.weight.copy_(drawn if own_scale else at_he_rms(layer, drawn))
        filled[name] = 1.0
    return filled


def at_random(kernels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Picks learned kernels at random, with replacement."""
    return kernels[torch.randint(len(kernels), (count,), generator=generator)]


def from_gaussian(kernels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws from the Gaussian that has the learned kernels' mean and covariance."""
    _, channels, height, width = kernels.shape
    return Gaussian((channels, height, width)).fit_(kernels).sample(count, generator)


def _fitting(layer: ConvLayer, learned: Learned) -> dict[float, Tensor]:
    height, width = layer.kernel_size
    return dict(learned.get((kind_of(layer), height), {})) if height == width else {}


learned_start = partial(Start, needs=("learned",), trained_on="the images of the kernels' networks")
add_start(learned_start(GAUSSIAN, "empirical Gaussian", "#d68910", fill=partial(from_learned, pick=from_gaussian)))
kernels_at_he_rms = partial(from_learned, pick=at_random)
add_start(learned_start(LEARNED, "learned kernels", "#16a085", fill=kernels_at_he_rms, aliases=(LEARNED_HE,)))
kernels_as_they_are = partial(from_learned, pick=at_random, own_scale=True)
add_start(learned_start(LEARNED_OWN, "learned kernels, own scale", "#76d7c4", fill=kernels_as_they_are))
