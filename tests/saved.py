"""Small priors of every family that are saved in a folder, whose files tests then change."""

import json
from pathlib import Path

import torch
from safetensors.torch import load

from dwp_init import (
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
    PatchWhitening,
)
from dwp_init.folder import CONFIG, MODEL
from dwp_init.storage import safetensors_bytes

PRIORS = {
    "gaussian": lambda: Gaussian((2, 3, 3)),
    "dense": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=4, dropout=0.2, min_scale=0.1, whiten=False),
    "paper": lambda: KernelVAE((1, 7, 7), network="paper", latent_dim=2),
    "mixture": lambda: GaussianMixture((1, 3, 3), components=3, scales=(0.5, 1.0)),
    "by-depth": lambda: MixtureByDepth((1, 3, 3), (0.2, 1.0), (3, 2), (0.5, 1.0)),
    "kde": lambda: KernelDensity((2, 3, 3), count=100),
    "flow": lambda: Flow((1, 3, 3), transforms=2, hidden=8),
    "flow-coupling": lambda: Flow((1, 3, 3), network="nsf", transforms=2, hidden=8, coupling=True),
    "autoregressive": lambda: Autoregressive((1, 3, 3), hidden=8, mixtures=2, dropout=0.1),
    "patch-whitening": lambda: PatchWhitening((2, 3, 3)),
    "chain": lambda: KernelChain((1, 3, 3), transitions=2, latent_dim=2, hidden=8),
}
DETAILS = {"name": "tést-3x3", "source": {"networks": 8}, "metrics": {"log_prob": 1.5, "none": None}, "list": [1, "a"]}


def make(kind="dense"):
    torch.manual_seed(0)
    prior = PRIORS[kind]()
    kernels = torch.randn(100, prior.dim)
    if hasattr(prior, "fit_"):
        prior.fit_(kernels.view(-1, *prior.kernel_shape))
    elif not isinstance(prior, MixtureByDepth):  # whose mixtures start as densities
        prior.whitening.fit_(kernels)
    with torch.no_grad():
        for parameter in prior.parameters():  # away from networks that start at zero
            parameter += 0.05 * torch.randn_like(parameter)
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
