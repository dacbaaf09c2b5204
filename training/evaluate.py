"""How good a prior is: log p of held-out kernels, and how its samples differ from them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dwp_init import KernelVAE, Prior, load_prior
from dwp_init.files import write_bytes
from dwp_init.hub import registry
from training.kernels import KernelSet
from training.stages import Context, Stage, read_config, read_done

SCORES = "scores.safetensors"
SAMPLES = 1000
MOST = 3000
SMOKE = {"samples": 30, "most": 200}


def bundled_digests(*names: str) -> dict[str, Any]:
    """Returns the digests of bundled priors by name; ValueError if one is unknown."""
    return {name: _digests(name) for name in names}


def _digests(name: str) -> dict[str, str]:
    load_prior(name)
    if name not in registry():
        raise ValueError(f"{name!r} is a folder; this stage takes bundled priors: {', '.join(registry())}")
    return registry()[name]["sha256"]


@torch.no_grad()
def score(prior: Prior, kernels: Tensor, samples: int = SAMPLES, most: int = MOST) -> tuple[Tensor, dict[str, Any]]:
    """Estimates log p of kernels under a prior, in nats per kernel.

    Args:
        prior: The prior; left in evaluation mode.
        kernels: ``(n, c, k, k)``; of more than ``most``, the evenly spaced ones of :func:`thin` are used.
        samples: Latents per kernel where log p is a lower bound; the seed is fixed.
        most: How many kernels at the most.

    Returns:
        log p of each kernel used, on the CPU; and their mean ``log_prob``, how many, and for a VAE the ``elbo``.
    """
    prior.eval()
    kernels = thin(kernels, most).to(prior.device)
    generator = torch.Generator(prior.device).manual_seed(0)
    if isinstance(prior, KernelVAE):
        values = prior.log_prob(kernels, samples, generator)
        elbo = torch.stack([prior.elbo(kernels, generator) for _ in range(20)]).mean()
        extra = {"elbo": round(elbo.item(), 3), "latents_per_kernel": samples}
    else:
        values, extra = prior.log_prob(kernels), {}
    return values.cpu(), {"log_prob": round(values.mean().item(), 3), "kernels": len(values), **extra}


def thin(values: Tensor, most: int) -> Tensor:
    """Returns at most ``most`` evenly spaced rows."""
    return values[:: max(-(-len(values) // most), 1)]


def clustered_error(values: Tensor, cluster: Tensor) -> float:
    """Returns the standard error of a mean whose values ``(n,)`` are alike within clusters ``(n,)``, such as networks.

    With a single cluster, each value counts as one of its own.
    """
    labels = torch.unique(cluster, return_inverse=True)[1]
    if labels.max() == 0:
        labels = torch.arange(len(values))
    sums = torch.zeros(int(labels.max()) + 1).index_add(0, labels, values - values.mean())
    count = len(sums)
    return (count / max(count - 1, 1) * sums.square().sum()).sqrt().item() / len(values)


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
    quantiles = torch.quantile(norms[:: -(-len(norms) // 100_000)], torch.tensor([0.05, 0.5, 0.95]))
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
    """Puts the held-out log p of several fits side by side, paired by kernel; records ``<name>.csv``.

    Standard errors are over networks, for kernels of one network are not independent.

    Args:
        needs: The kernels, then the fits to them, a Gaussian among them.
        name: Name of the record.
    """

    name: str = "density"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        fits = [context.out / need for need in self.needs[1:]]
        scores = [load_file(fit / SCORES)["log_prob"] for fit in fits]
        settings = [read_config(fit)["settings"] for fit in fits]
        network = thin(kernels.test_network, SMOKE["most"] if context.smoke else MOST)
        control = next(score for score, fit in zip(scores, settings, strict=True) if fit["family"] == "gaussian")
        table = [
            {
                "prior": fit["name"],
                "log_prob": round(values.mean().item(), 3),
                "standard_error": round(clustered_error(values, network), 3),
                "over_gaussian": round((values - control).mean().item(), 3),
                "over_gaussian_error": round(clustered_error(values - control, network), 3),
                "elbo": read_done(folder.parent / need)["metrics"].get("elbo", ""),
                "kernels": len(values),
                "of": len(kernels.test),
            }
            for values, fit, need in zip(scores, settings, self.needs[1:], strict=True)
        ]
        write_table(folder / "record" / f"{self.name}.csv", table)
        for row in table:
            over = f"{row['over_gaussian']:+.2f} ± {row['over_gaussian_error']:.2f} over the Gaussian"
            print(f"  {row['prior']:24} {row['log_prob']:8.2f} ± {row['standard_error']:.2f} nats, {over}")
        return {"density": table}


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows of equal keys as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())
