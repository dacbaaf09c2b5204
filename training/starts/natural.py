"""Starts by ``dwp_init.apply_`` as users call it, and white noise of the response of its draws.

Layers that no prior fits stay as the network's class made them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import dwp_init
from dwp_init import PriorSet
from dwp_init.layers import Layer
from dwp_init.report import Report
from dwp_init.rules import PriorLike
from dwp_init.sets import SETS
from training.starts.base import IMAGENET, TINY_IMAGENET, Draw, Start, add_start, kind_of, spatial_convolutions

NATURAL, NATURAL_KEEP, NATURAL_FAN_IN = "natural", "natural, keep", "natural, fan_in"
DENSE_DRAWN, NATURAL_RESIZED = "natural, dense drawn", "natural, resized"
NATURAL_V1, V1_KEEP, V1_FAN_IN = "natural-v1", "natural-v1, keep", "natural-v1, fan_in"
V1_MEANS, V1_RESIZED = "natural-v1, means kept", "natural-v1, resized"
NOISE_RESPONSE, NATURAL_NOISE = "white noise, response", "natural, noise behind the stem"


def as_applied(draw: Draw, **options: Any) -> dict[str, float]:
    """Does what :func:`dwp_init.apply_` does, with the priors and the seed of the draw unless options give others.

    Layers that their author set up, such as those that are all zero, stay as they are.
    """
    return dict.fromkeys(applied(draw, **options).initialized, 1.0)


def means_kept(draw: Draw) -> Mapping[str, float]:
    """Draws dense layers as the set does, and depthwise ones independently, without subtracting means.

    Raises:
        ValueError: No prior is for the network's depthwise layers, or it has none.
    """
    kinds = {name: kind_of(draw.layers[name]) for name in planned(draw).initialized if name in draw.layers}
    if "depthwise" not in kinds.values():
        raise ValueError(_without_effect(draw, "depthwise layers that a prior fits", len(kinds)))
    filled: dict[str, float] = {}
    for kind in sorted(set(kinds.values())):
        layers = {name: draw.layers[name] for name in kinds if kinds[name] == kind}
        filled |= as_applied(replace(draw, layers=layers), orthogonal=None if kind == "dense" else False)
    return filled


def dense_drawn(draw: Draw) -> Mapping[str, float]:
    """Draws as the set does, and the kernels that it leaves too."""
    return as_applied(draw, prior=_without_kept(draw))


def _dense_drawn_plan(draw: Draw) -> Report:
    return planned(draw, prior=_without_kept(draw))


def _without_kept(draw: Draw) -> list[PriorLike]:
    """Returns the priors of a draw, with sets that draw layers of all their kinds."""
    likes = (SETS.get(like, like) if isinstance(like, str) else like for like in draw.priors)
    return [replace(like, kept=()) if isinstance(like, PriorSet) else like for like in likes]


def resized(draw: Draw) -> Mapping[str, float]:
    """Draws as the set does, and layers of other sizes from the prior of the nearest size.

    Raises:
        ValueError: There is a prior of the size of every layer.
    """
    drawn = planned(draw, resize=True).drawn
    if not any(", resized from " in layer.prior for layer in drawn):
        raise ValueError(_without_effect(draw, "layers of sizes without a prior", len(drawn)))
    return as_applied(draw, resize=True)


def applied(draw: Draw, **options: Any) -> Report:
    """Does what :func:`as_applied` does, and returns the report.

    The layers are those of the draw, and all 1×1 ones, of which ``apply_`` changes the scale in some networks.
    """
    options = {"prior": list(draw.priors), "seed": draw.seed, **options}
    left = spatial_convolutions(draw.network).keys() - draw.layers.keys()
    return dwp_init.apply_(draw.network, layers=lambda name, module: name not in left, **options)


def planned(draw: Draw, **options: Any) -> Report:
    """Returns the report of what :func:`as_applied` would do."""
    return applied(draw, dry_run=True, **options)


def _without_effect(draw: Draw, where: str, drawn: int) -> str:
    plain = draw.start.partition(",")[0]
    return (
        f"{draw.start!r} differs from {plain!r} in {where}, but the network has none besides the {drawn} that "
        f"{plain!r} draws alike; leave it out"
    )


@torch.no_grad()
def noise_of_response(draw: Draw, stem: bool = True) -> Mapping[str, float]:
    """Fills with white noise of the response that the draws of the set have, layer by layer.

    Channels that pass inputs on stay, kernels that the set leaves too, and the stem where it is not asked for.

    Raises:
        ValueError: The stem is not asked for, and the set draws nothing else, or only copies of the inputs.
    """
    drawn = {layer.layer for layer in planned(draw).drawn if layer.from_prior}
    chosen = {name: layer for name, layer in draw.described().items() if name in drawn and (stem or not layer.first)}
    if not chosen:
        raise ValueError(_without_effect(draw, "draws behind the stem", len(drawn)))
    filled = as_applied(draw)
    for name, layer in chosen.items():
        weight = draw.layers[name].weight
        noise = torch.randn(weight.shape, generator=draw.generator(name))
        weight.copy_(_in_place_of_draws(layer, weight, noise))
    return filled


def _in_place_of_draws(layer: Layer, weight: Tensor, noise: Tensor) -> Tensor:
    """Returns a weight with noise of the same response in all channels that are not one number in one kernel."""
    filters = layer.filters(weight)
    drawn = (filters.flatten(1).count_nonzero(1) != 1).view(-1, *(1 for _ in filters[0].shape))
    draws, others = (layer.arrange(layer.filters(each) * drawn) for each in (weight, noise))
    return weight - draws + others * (layer.measure(draws).response / layer.measure(others).response)


noise_behind_stem = partial(noise_of_response, stem=False)
keep, fan_in = (partial(as_applied, scale=scale) for scale in ("keep", "fan_in"))
seen = f"{TINY_IMAGENET}, {IMAGENET}"
keep_plan, fan_in_plan = (partial(planned, scale=scale) for scale in ("keep", "fan_in"))
resized_plan = partial(planned, resize=True)
natural_start = partial(Start, needs=("priors",), trained_on=seen, keeps_rest=True, plan=planned, edition=3)
add_start(natural_start(NATURAL, "natural", "#d81b60", fill=as_applied))
add_start(natural_start(DENSE_DRAWN, "natural, dense drawn", "#6a1b9a", fill=dense_drawn, plan=_dense_drawn_plan))
add_start(natural_start(NATURAL_KEEP, "natural, keep", "#c2185b", fill=keep, plan=keep_plan))
add_start(natural_start(NATURAL_FAN_IN, "natural, fan_in", "#4a148c", fill=fan_in, plan=fan_in_plan))
add_start(natural_start(NATURAL_RESIZED, "natural, resized", "#ad1457", fill=resized, plan=resized_plan))
add_start(
    replace(natural_start(NATURAL_NOISE, "natural, noise", "#5d4037", fill=noise_behind_stem), edition=1, control=True)
)
from_first = partial(Start, needs=("priors",), keeps_rest=True, priors=(NATURAL_V1,), plan=planned)
first_edition = partial(from_first, trained_on=TINY_IMAGENET)
add_start(first_edition(NATURAL_V1, "natural-v1", "#f48fb1", fill=as_applied))
add_start(first_edition(V1_KEEP, "natural-v1, keep", "#ce93d8", fill=keep))
add_start(first_edition(V1_FAN_IN, "natural-v1, fan_in", "#7b1fa2", fill=fan_in))
add_start(first_edition(V1_MEANS, "natural-v1, means kept", "#f06292", fill=means_kept))
add_start(first_edition(V1_RESIZED, "natural-v1, resized", "#880e4f", fill=resized, plan=resized_plan))
add_start(from_first(NOISE_RESPONSE, "white noise, response", "#95a5a6", fill=noise_of_response, control=True))
