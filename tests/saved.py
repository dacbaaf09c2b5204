"""Small priors that are saved in a folder, whose files tests then change."""

import json
from pathlib import Path

import torch
from safetensors.torch import load

from dwp_init.folder import CONFIG, MODEL
from dwp_init.storage import safetensors_bytes
from tests.priors.families import PRIORS, fitted, shaken

DETAILS = {"name": "tést-3x3", "source": {"networks": 8}, "metrics": {"log_prob": 1.5, "none": None}, "list": [1, "a"]}


def make(kind="dense"):
    torch.manual_seed(0)
    prior = shaken(fitted(PRIORS[kind]()), 0.05)
    prior.details = dict(DETAILS)
    return prior.eval()


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def change_config(folder, **changes):
    """Changes a configuration, as of format 1, which has no digest of its own."""
    config = json.loads((folder / CONFIG).read_text()) | {"format_version": 1, "config_sha256": ...} | changes
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def change_tensors(folder, **changes):
    tensors = load((folder / MODEL).read_bytes()) | {name.replace("__", "."): value for name, value in changes.items()}
    (folder / MODEL).write_bytes(
        safetensors_bytes({name: value for name, value in tensors.items() if value is not None})
    )
