"""Bundled priors by name, as inputs of a stage."""

import itertools
from typing import Any

from dwp_init import load_prior
from dwp_init.registry import registry
from dwp_init.sets import SETS


def bundled_digests(*names: str) -> dict[str, Any]:
    """Returns the digests of bundled priors by name, those of a set each; ValueError if one is unknown."""
    members = [[like for _, like in SETS[name]] if name in SETS else [name] for name in names]
    return {name: _digests(name) for name in itertools.chain.from_iterable(members)}


def _digests(name: str) -> dict[str, str]:
    load_prior(name)
    if name not in registry():
        raise ValueError(f"{name!r} is a folder; this stage takes bundled priors: {', '.join(registry())}")
    return registry()[name]["sha256"]
