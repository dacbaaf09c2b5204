"""Starts from priors: dwp, by :func:`dwp_init.apply_`, and its variants."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

import dwp_init
from dwp_init.folder import CONFIG
from dwp_init.registry import BUNDLED, registry
from dwp_init.sets import SETS
from dwp_init.storage import json_bytes
from training.starts.base import BOTH, TINY_IMAGENET, Draw, Start, add_start, at_he_rms
from training.starts.controls import unit_variance_

DWP, DWP_OWN, DWP_ORTHOGONAL = "dwp", "dwp, prior's scale", "dwp, orthogonal"
DWP_CENTRED, DWP_LSUV, NOISE_OWN = "dwp, centred", "dwp, LSUV", "white noise, prior's scale"


def bundled_digests(*names: str) -> dict[str, dict[str, str]]:
    """Returns the digests of bundled priors by name, and those of each prior of a bundled set.

    Raises:
        ValueError: A name is not that of a bundled prior or set.
    """
    members = ([str(like) for _, like in SETS[name]] if name in SETS else [name] for name in names)
    return {name: _digests(name) for name in itertools.chain.from_iterable(members)}


def _digests(name: str) -> dict[str, str]:
    if name not in registry():
        raise ValueError(f"{name!r} is no bundled prior; this stage takes one of these: {', '.join(registry())}")
    config: dict[str, Any] = json.loads((BUNDLED / name / CONFIG).read_bytes())
    del config["config_sha256"]  # as in format 1, in which the runs of record know it
    digests: dict[str, str] = registry()[name]["sha256"]
    return digests | {CONFIG: hashlib.sha256(json_bytes(config | {"format_version": 1})).hexdigest()}


@torch.no_grad()
def from_priors(draw: Draw, own_scale: bool = False, orthogonal: bool = False) -> Mapping[str, float]:
    """Fills the layers that a prior fits by :func:`dwp_init.apply_`, each kernel independently unless orthogonal.

    A prior of depthwise kernels fits other layers too. Each layer has He's root mean square, however strong its
    response is, unless the prior's own scale is kept.
    """
    chosen: dict[str, Any] = {"layers": list(draw.layers), "seed": draw.seed, "orthogonal": orthogonal}
    report = dwp_init.apply_(draw.network, {"*": list(draw.priors)}, scale="prior", **chosen)
    for name in () if own_scale else report.initialized:
        layer = draw.layers[name]
        layer.weight.copy_(at_he_rms(layer, layer.weight))
    return dict.fromkeys(report.initialized, 1.0)


@torch.no_grad()
def centred(draw: Draw) -> Mapping[str, float]:
    """Fills as dwp does, then subtracts each kernel's mean and restores He's scale."""
    filled = from_priors(draw)
    for name in filled:
        layer = draw.layers[name]
        layer.weight.copy_(at_he_rms(layer, layer.weight - layer.weight.mean((2, 3), keepdim=True)))
    return filled


@torch.no_grad()
def noise_of_own_scale(draw: Draw) -> Mapping[str, float]:
    """Fills with white noise of the root mean square that the priors' own draws have, layer by layer."""
    filled = from_priors(draw, own_scale=True)
    for name in filled:
        weight = draw.layers[name].weight
        noise = torch.randn(weight.shape, generator=draw.generator(name))
        weight.copy_(noise * (weight.square().mean().sqrt() / noise.square().mean().sqrt()))
    return filled


prior_start = partial(Start, needs=("priors",), trained_on=TINY_IMAGENET)
add_start(prior_start(DWP, "dwp", "#c0392b", fill=from_priors))
add_start(prior_start(DWP_OWN, "dwp, prior's scale", "#e6b0aa", fill=partial(from_priors, own_scale=True)))
add_start(prior_start(DWP_ORTHOGONAL, "dwp, orthogonal", "#e67e22", fill=partial(from_priors, orthogonal=True)))
add_start(prior_start(DWP_CENTRED, "dwp, centred", "#f1948a", fill=centred))
add_start(Start(DWP_LSUV, "dwp, LSUV", "#6e2c00", ("priors", "batch"), from_priors, unit_variance_, trained_on=BOTH))
add_start(prior_start(NOISE_OWN, "white noise, prior's scale", "#bdc3c7", fill=noise_of_own_scale))
