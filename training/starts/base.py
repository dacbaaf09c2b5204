"""The registry of starts, and the one function that initialises a network by one of them."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dwp_init.convolutions import find_layers, he_rms, is_depthwise
from dwp_init.layers import Layer
from dwp_init.report import Report
from dwp_init.rules import PriorLike
from training.kernels.source_file import SourceFile

KAIMING = "Kaiming"
LEARNED_KINDS = ("dense", "depthwise")

ConvLayer = nn.Conv2d | nn.ConvTranspose2d
Need = Literal["priors", "learned", "batch", "again", "files"]
Learned = Mapping[tuple[str, int], Mapping[float, Tensor]]
"""Learned kernels ``(n, 1, k, k)`` by kind of layer, size k and relative depth from 0 to 1."""

WAYS_OUT: dict[Need, str] = {
    "priors": "name priors=",
    "learned": "name kernels stages in needs=",
    "batch": "give images in batch=",
    "again": "give a function that builds the network from a seed in again=",
    "files": "name the folder of its files in folder=",
}
UNTRAINED, TASK, TINY_IMAGENET = "nothing", "the task's training images", "Tiny ImageNet (100 classes)"
IMAGENET, CIFAR10, BOTH = "ImageNet", "CIFAR-10", f"{TASK}, {TINY_IMAGENET}"


@dataclass(frozen=True)
class Draw:
    """One initialisation of one network.

    Args:
        network: The network, on the CPU.
        layers: The convolutions to fill, by name, in the order of the network's modules.
        start: Name of the start.
        seed: Seed of the draws.
        priors: Names, folders or priors, one for each kernel size, or a set.
        learned: Learned kernels.
        batch: Training images ``(n, c, h, w)``; empty where none are given.
        again: Builds the same network from another seed.
        files: The start's files.
    """

    network: nn.Module
    layers: Mapping[str, ConvLayer]
    start: str
    seed: int
    priors: Sequence[PriorLike] = ()
    learned: Learned = field(default_factory=dict)
    batch: Tensor = field(default_factory=lambda: torch.empty(0))
    again: Callable[[int], nn.Module] = lambda seed: nn.Module()
    files: Sequence[Path] = ()

    @property
    def other_seed(self) -> int:
        """A seed of this start's own, so that its draws from priors are not those of another start."""
        return self.generator("").initial_seed()

    def described(self) -> dict[str, Layer]:
        """Returns the layers as :func:`dwp_init.apply_` sees them, by name; without those that it cannot write."""
        found = find_layers(self.network, lambda named: named.name in self.layers)
        return {layer.name: layer for layer in found if layer.name in self.layers and layer.reason is None}

    def generator(self, layer: str) -> torch.Generator:
        """Returns the source of randomness of one layer, a function of the start, the seed and the layer's name.

        Starts never share draws: white noise must not repeat Kaiming's.
        """
        digest = hashlib.sha256(f"{self.start}:{self.seed}:{layer}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


Fill = Callable[[Draw], Mapping[str, float]]
"""Fills a draw's layers in place; returns which share of their weights, by name, without those left as they were."""
Law = Callable[[ConvLayer, torch.Generator], Tensor]
"""Draws the weight of one layer."""


@dataclass(frozen=True)
class Start:
    """One way to initialise the spatial convolutions of a network.

    Args:
        name: Its name in the recorded tables.
        label: Its name in the legends of figures.
        colour: Its colour in figures.
        needs: What it draws from.
        fill: Fills the layers.
        finish: What is done once all layers are filled, those too that ``fill`` left to Kaiming's law.
        aliases: Other names of the same law in recorded tables.
        trained_on: The images that its sources have seen; for starts from priors that are given, those of the set
            ``natural``.
        keeps_rest: Whether layers that ``fill`` leaves stay as the network's class made them, instead of taking
            Kaiming's draw.
        files: The files that it draws from.
        priors: Names of the bundled priors or sets that it draws from instead of those given.
        plan: Says what it would draw from priors, and where; without it, all of its priors count as drawn from.
        control: Whether it only says what a part of another start is worth, or how far chance goes, and is none to use.
        edition: A number that grows where a change of code changes the law of the draws, so that runs of record with
            the earlier law are made again.
    """

    name: str
    label: str
    colour: str
    needs: tuple[Need, ...]
    fill: Fill
    finish: Callable[[Draw], None] | None = None
    aliases: tuple[str, ...] = ()
    trained_on: str = UNTRAINED
    keeps_rest: bool = False
    files: tuple[SourceFile, ...] = ()
    priors: tuple[str, ...] = ()
    plan: Callable[[Draw], Report] | None = None
    control: bool = False
    edition: int = 1


STARTS: dict[str, Start] = {}
"""All starts by name, in the order in which tables and figures list them."""


def add_start(start: Start) -> Start:
    """Enters a start into ``STARTS``.

    Raises:
        ValueError: One of its names is taken.
    """
    taken = {start.name, *start.aliases} & set(start_names())
    if taken:
        raise ValueError(f"there is a start of this name already: {'; '.join(sorted(taken))}")
    STARTS[start.name] = start
    return start


def start_names() -> tuple[str, ...]:
    """Returns the names of all starts, each followed by its aliases."""
    return tuple(name for start in STARTS.values() for name in (start.name, *start.aliases))


def find_start(name: str) -> Start | None:
    """Returns the start of this name or alias; ``None`` where there is none."""
    return next((start for start in STARTS.values() if name in (start.name, *start.aliases)), None)


def legend(name: str) -> tuple[str, str | None]:
    """Returns label and colour of a start in figures; of any other name, the name itself and no colour."""
    start = find_start(name)
    return (start.label, start.colour) if start else (name, None)


def check_starts(
    chosen: Sequence[str],
    *,
    priors: bool,
    learned: bool,
    batch: bool = False,
    again: bool = False,
    files: bool = False,
) -> list[Start]:
    """Returns the starts of these names, after checking the choice.

    Args:
        chosen: Their names.
        priors: Whether there are priors.
        learned: Whether there are learned kernels.
        batch: Whether there is a batch of images.
        again: Whether the network can be built again, from another seed.
        files: Whether there is a folder of files.

    Raises:
        ValueError: A start is unknown, named twice or lacks something that it draws from, or none is named.
    """
    starts = [start for start in map(find_start, chosen) if start]
    if not chosen or len({start.name for start in starts}) < len(chosen):
        raise ValueError(
            f"each name must be one of a start, given once; got {'; '.join(chosen) or 'none'}; there are "
            f"{'; '.join(start_names())}"
        )
    there: dict[Need, bool] = {"priors": priors, "learned": learned, "batch": batch, "again": again, "files": files}
    for need, way_out in WAYS_OUT.items():
        lacking = [name for name, start in zip(chosen, starts, strict=True) if need in start.needs and not there[need]]
        if lacking:
            raise ValueError(f"{'; '.join(lacking)} cannot be drawn from nothing: {way_out}, or leave them out")
    return starts


def initialize_(
    network: nn.Module,
    start: str,
    seed: int,
    *,
    priors: Sequence[PriorLike] = (),
    learned: Learned | None = None,
    batch: Tensor | None = None,
    again: Callable[[int], nn.Module] | None = None,
    folder: Path | None = None,
    layers: Sequence[str] = ("*",),
    strict: bool = False,
) -> float:
    """Draws the weights of a network's spatial convolutions, in place; everything else keeps its value.

    Spatial are ``Conv2d`` and ``ConvTranspose2d`` layers with kernels larger than 1×1. A layer that no prior and no
    learned kernel fits takes Kaiming's draw of that seed, or stays as it is with starts that keep the rest. Draws
    depend on the start, the seed and the layer's name alone; the global random state stays. Starts by ``anyinit``
    initialise all other layers too, a start from other draws the biases of the convolutions, and some starts the
    weights of 1×1 convolutions, as ``apply_`` does where nothing normalises.

    Args:
        network: The network, on the CPU.
        start: Name of a start of ``STARTS``.
        seed: Seed of the draws.
        priors: Names, folders or priors, one for each kernel size, or a set.
        learned: Learned kernels, for the starts that draw from these.
        batch: Training images: for LSUV, which takes the first 128 and has normalisation layers in evaluation mode,
            and for whitening, which takes all.
        again: Builds the same network from another seed.
        folder: Where the files are looked for from which some starts draw.
        layers: Patterns of the names of the layers to initialise.
        strict: Whether a layer that would take Kaiming's draw is an error.

    Returns:
        The share of the weights of these layers that the start drew. Kaiming's draws in layers that nothing fits do not
        count, and neither do weights that stayed as they were.

    Raises:
        ValueError: The start is unknown or lacks what it draws from, or no layer fits.
        FileNotFoundError: A file that the start draws from is missing.
        ImportError: The package of the start is not installed.
    """
    there = {"batch": batch is not None, "again": again is not None, "files": folder is not None}
    (record,) = check_starts((start,), priors=bool(priors), learned=bool(learned), **there)
    spatial = spatial_convolutions(network)
    chosen = {name: layer for name, layer in spatial.items() if any(fnmatchcase(name, each) for each in layers)}
    if not chosen:
        has = ", ".join(spatial) or "none"
        raise ValueError(
            f"no convolution of the network with kernels larger than 1×1 matches {tuple(layers)}; it has {has}"
        )
    images = torch.empty(0) if batch is None else batch
    files = [file.find(folder or Path()) for file in record.files]
    given = record.priors or priors
    draw = Draw(network, chosen, record.name, seed, given, learned or {}, images, again or Draw.again, files)
    filled = record.fill(draw)
    rest = {name: layer for name, layer in chosen.items() if name not in filled and not record.keeps_rest}
    if rest and strict:
        shown = ", ".join(f"{name} ({kind_and_size(layer)})" for name, layer in rest.items())
        raise ValueError(f"{start!r} has nothing to draw from for {shown}: add to priors or needs, or narrow layers=")
    if rest:
        STARTS[KAIMING].fill(replace(draw, layers=rest, start=KAIMING))
    if record.finish:
        record.finish(draw)
    weights = {name: layer.weight.numel() for name, layer in chosen.items()}
    return sum(filled.get(name, 0.0) * count for name, count in weights.items()) / sum(weights.values())


def spatial_convolutions(network: nn.Module) -> dict[str, ConvLayer]:
    """Returns the convolutions with kernels larger than 1×1 by name, in the order of the network's modules."""
    modules = {name: module for name, module in network.named_modules() if isinstance(module, ConvLayer)}
    return {name: layer for name, layer in modules.items() if math.prod(layer.kernel_size) > 1}


def kind_of(layer: ConvLayer) -> str:
    """Returns ``depthwise`` if each of several input channels is a group of its own, otherwise ``dense``."""
    return LEARNED_KINDS[1] if is_depthwise(layer) else LEARNED_KINDS[0]


def kind_and_size(layer: ConvLayer) -> str:
    """Returns kind and size of a layer's kernels, such as ``dense 5×5``."""
    return f"{kind_of(layer)} {'×'.join(map(str, layer.kernel_size))}"


def each(law: Law) -> Fill:
    """Makes a fill of a law by which every layer is drawn on its own."""

    @torch.no_grad()
    def fill(draw: Draw) -> Mapping[str, float]:
        for name, layer in draw.layers.items():
            layer.weight.copy_(law(layer, draw.generator(name)))
        return dict.fromkeys(draw.layers, 1.0)

    return fill


def at_he_rms(layer: ConvLayer, weight: Tensor) -> Tensor:
    """Rescales a weight of the layer to the root mean square √(2 / fan_in) of He et al. (2015)."""
    return weight * (he_rms(layer) / weight.square().mean().sqrt())
