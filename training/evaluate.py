"""How good a prior is: log p of held-out kernels, and how its samples differ from them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwp_init import KernelVAE, Prior
from dwp_init.files import write_bytes
from training.stages import Context, Stage, read_config, read_done

SAMPLES = 1000
MOST = 3000
SMOKE = {"samples": 30, "most": 200}


@torch.no_grad()
def log_prob(prior: Prior, kernels: Tensor, samples: int = SAMPLES, most: int = MOST) -> dict[str, float]:
    """Estimates the mean log p of kernels under a prior, in nats per kernel.

    Args:
        prior: The prior; left in evaluation mode.
        kernels: ``(n, c, k, k)``; of more than ``most``, evenly spaced ones are used.
        samples: Latents per kernel where log p is a lower bound; the seed is fixed.
        most: How many kernels at the most.

    Returns:
        ``log_prob``, its standard error over kernels, how many kernels, and for a VAE the ``elbo``.
    """
    prior.eval()
    kernels = kernels[:: max(-(-len(kernels) // most), 1)].to(prior.device)
    generator = torch.Generator(prior.device).manual_seed(0)
    if isinstance(prior, KernelVAE):
        values = prior.log_prob(kernels, samples, generator)
        elbo = torch.stack([prior.elbo(kernels, generator) for _ in range(20)]).mean()
        extra = {"elbo": round(elbo.item(), 3), "latents_per_kernel": samples}
    else:
        values, extra = prior.log_prob(kernels), {}
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else values.new_tensor(float("inf"))
    return {
        "log_prob": round(values.mean().item(), 3),
        "standard_error": round(error.item(), 3),
        "kernels": len(values),
        **extra,
    }


def sample_statistics(prior: Prior, kernels: Tensor, n: int = 10_000) -> dict[str, dict[str, Any]]:
    """Describes held-out kernels, draws from the prior, and draws without the decoder's noise, side by side."""
    sets = {"real": kernels}
    for label, noise in (("drawn", True), ("mean", False)):
        sets[label] = prior.sample(n, torch.Generator(prior.device).manual_seed(0), noise=noise).cpu()
    return {
        label: describe_kernels(part) | {"frechet": round(frechet_distance(part, kernels), 5)}
        for label, part in sets.items()
        if label != "mean" or isinstance(prior, KernelVAE)
    }


def describe_kernels(kernels: Tensor) -> dict[str, Any]:
    """Returns root mean square, quantiles of the norm and roughness of kernels ``(n, c, k, k)``.

    Roughness is the mean squared difference of neighbours over twice the mean square: 1 for white noise, 0 for flat.
    """
    norms = kernels.flatten(1).norm(dim=1)
    quantiles = torch.quantile(norms[:100_000], torch.tensor([0.05, 0.5, 0.95]))
    steps = (kernels.diff(dim=2).square().mean() + kernels.diff(dim=3).square().mean()) / 2
    return {
        "rms": round(kernels.square().mean().sqrt().item(), 5),
        "norm_5_50_95": [round(value, 4) for value in quantiles.tolist()],
        "roughness": round((steps / (2 * kernels.square().mean())).item(), 4),
    }


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared 2-Wasserstein distance of the Gaussians fitted to two sets of kernels."""
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(part.flatten(1).double()) for part in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def _moments(kernels: Tensor) -> tuple[Tensor, Tensor]:
    return kernels.mean(0), torch.cov(kernels.T)


@dataclass(frozen=True)
class Density(Stage):
    """Puts the held-out log p of several fits to the same kernels side by side; records ``<name>.csv``.

    Args:
        needs: The fits, a Gaussian among them.
        name: Name of the record.
    """

    name: str = "density"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        fits = [(read_config(context.out / need)["settings"], read_done(context.out / need)) for need in self.needs]
        gaussian = next(done["metrics"]["log_prob"] for settings, done in fits if settings["family"] == "gaussian")
        table = [
            {"prior": settings["name"]}
            | {column: done["metrics"].get(column, "") for column in ("log_prob", "standard_error", "elbo", "kernels")}
            | {"over_gaussian": round(done["metrics"]["log_prob"] - gaussian, 3)}
            for settings, done in fits
        ]
        write_table(folder / "record" / f"{self.name}.csv", table)
        for row in table:
            print(f"  {row['prior']:24} {row['log_prob']:8.2f} nats, {row['over_gaussian']:+.2f} over the Gaussian")
        return {"density": table}


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows of equal keys as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())
