"""Kernels of a known law, and quick fits of every family to them."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from training.engine.stage import Context
from training.fits.autoregressive import FitAutoregressive
from training.fits.base import Fit, fitted_prior
from training.fits.chain import FitChain
from training.fits.density import FitDensity
from training.fits.flow import FitFlow
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.fits.vae import FitVAE
from training.kernels.kernelset import KernelSet

SHORT = {"name": "quick", "epochs": 4, "batch_size": 32, "evaluate_every": 1}
LATENT = {"latent_dim": 2, "hidden": 8}
QUICK = FitVAE(**LATENT, **SHORT)
QUICKS = {
    "gaussian": FitGaussian(),
    "mixture": FitMixture(components=(2, 3), shrinkages=(10.0,), scales=(1.0,), restarts=2),
    "kde": FitDensity(most=50),
    "flow": FitFlow(transforms=1, hidden=4, jitter=0.1, **SHORT),
    "autoregressive": FitAutoregressive(hidden=4, mixtures=2, dropout=0.5, **SHORT),
    "vae": QUICK,
    "chain": FitChain(**LATENT, **SHORT),
}


SCALE = 0.1


def noise(n: int, size: int = 3, seed: int = 0, channels: int = 1) -> Tensor:
    """White kernels in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, size, size, generator=generator, dtype=torch.float64)


def direction(size: int) -> Tensor:
    return torch.full((size**2,), 1 / size)


def mixture(n: int, seed: int, size: int = 3) -> Tensor:
    """Kernels from ½ N(d, 0.1² I) + ½ N(-d, 0.1² I), |d| = 1."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    noise = torch.randn(n, size**2, generator=generator)
    return (side * direction(size) + SCALE * noise).view(n, 1, size, size)


def mixture_log_prob(kernels: Tensor) -> Tensor:
    loc = direction(kernels.shape[-1])
    parts = [torch.distributions.Normal(sign * loc, SCALE).log_prob(kernels.flatten(1)).sum(1) for sign in (1, -1)]
    return torch.stack(parts).logsumexp(0) - math.log(2)


def write_kernels(out: Path, kernels: KernelSet) -> None:
    (out / "kernels").mkdir(parents=True)
    kernels.save(out / "kernels")
    done = {"source": {"dataset": "mixture"}, "kernels": kernels.counts(), "kept": 1.0}
    (out / "kernels" / "done.json").write_text(json.dumps(done))


def run(out: Path, stage: Fit, train: int = 200) -> Path:
    if not (out / "kernels").exists():
        parts = [mixture(n, seed) for seed, n in enumerate((train, 60, 60))]
        write_kernels(out, KernelSet(*parts, torch.zeros(60)))
    folder = out / "fit"
    folder.mkdir(exist_ok=True)
    summary = stage.run(folder, Context(out=out))
    assert summary["metrics"] == fitted_prior(folder).details["metrics"]
    return folder


def model_bytes(folder: Path) -> bytes:
    return (folder / "prior" / "model.safetensors").read_bytes()
