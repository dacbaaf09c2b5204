"""What a start draws from, where, and by which edition of its law, in twelve digits: what a run stands for."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.starts.base import Draw, check_starts, spatial_convolutions
from training.starts.priors import bundled_digests


def source_of(start: str, priors: Sequence[str], folder: Path | None, untrained: Callable[[], nn.Module]) -> str:
    """Returns a digest of what a start draws from in a network; empty if it draws from its law alone.

    That is the bundled priors, the files and the edition of the start. Where the start has a plan, only the priors
    count that the network's layers take, and which layer takes which: what changes in other networks is no reason to
    train this one again. How a draw is made of kernels, such as with orthogonal channels, is a matter of the edition.

    Args:
        start: Name of the start.
        priors: Names of bundled priors or sets, for starts that have none of their own.
        folder: Where the files are looked for.
        untrained: Builds the network; called if the start has a plan.

    Raises:
        ValueError: The start is unknown or lacks what it draws from, or a file has other contents.
        FileNotFoundError: A file is missing.
    """
    given = {"learned": True, "batch": True, "again": True, "files": folder is not None}
    (record,) = check_starts((start,), priors=bool(priors), **given)
    names = record.priors or priors
    parts: dict[str, Any] = {}
    if record.plan:
        with torch.random.fork_rng(devices=()):
            network = untrained()
        drawn = record.plan(Draw(network, spatial_convolutions(network), start, 0, names)).drawn
        parts["plan"] = [[layer.layer, layer.prior] for layer in drawn]
        names = sorted({layer.from_prior for layer in drawn} - {""})
    if "priors" in record.needs:
        parts |= bundled_digests(*names)
    for file in record.files:
        file.find(folder or Path())
        parts[file.name] = file.sha256
    if record.edition > 1:
        parts["edition"] = record.edition
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12] if parts else ""
