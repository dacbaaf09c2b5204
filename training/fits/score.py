"""How good priors are: log p of held-out kernels, and tables of it beside what their samples are like."""

import csv
import hashlib
import io
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dwp_init import KernelVAE, Prior, load_prior
from dwp_init.files import write_bytes
from dwp_init.registry import registry
from dwp_init.sets import SETS
from training.engine.stage import Context, Stage, read_config, read_done
from training.figures.kernels import plot_families
from training.fits.statistics import sample_statistics
from training.kernels.collect import KernelSet

PRIOR, SCORES = "prior", "scores.safetensors"
SAMPLES = 1000
MOST = 3000
SMOKE = {"samples": 30, "most": 200}


def bundled_digests(*names: str) -> dict[str, Any]:
    """Returns the digests of bundled priors by name, those of a set each; ValueError if one is unknown."""
    members = [[like for _, like in SETS[name]] if name in SETS else [name] for name in names]
    return {name: _digests(name) for name in itertools.chain.from_iterable(members)}


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
        log p of each kernel used, on the CPU; and their mean ``log_prob``, its ``kind`` (exact or bound) and the number
        of kernels. For a bound also the Monte Carlo standard error of that mean, the ``elbo`` and the latents used.
    """
    prior.eval()
    kernels = thin(kernels, most).to(prior.device)
    generator = torch.Generator(prior.device).manual_seed(0)
    if prior.exact:
        values, extra = torch.cat([prior.log_prob(part) for part in kernels.split(500)]), {"kind": "exact"}
    else:
        values, error = prior.estimate(kernels, samples, generator)
        elbo = torch.stack([prior.elbo(kernels, generator) for _ in range(20)]).mean()
        extra = {
            "kind": "bound",
            "monte_carlo_error": round((error.square().sum().sqrt() / len(error)).item(), 4),
            "elbo": round(elbo.item(), 3),
            "latents_per_kernel": samples,
        }
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


@dataclass(frozen=True)
class Density(Stage):
    """Puts the held-out log p of several fits side by side, paired by kernel, and draws from them.

    Records ``<name>.csv`` and ``<name>.png``.

    Standard errors are over networks, for kernels of one network are not independent.

    Args:
        needs: The kernels, then the fits to them, a Gaussian and a mixture among them.
        name: Name of the record.
    """

    name: str = "density"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        fits = {read_config(context.out / need)["settings"]["name"]: context.out / need for need in self.needs[1:]}
        scores = {name: load_file(fit / SCORES)["log_prob"] for name, fit in fits.items()}
        network = thin(kernels.test_network, SMOKE["most"] if context.smoke else MOST)
        controls = {}
        for name, fit in fits.items():
            controls.setdefault(read_done(fit)["family"], scores[name])
        missing = [control for control in ("gaussian", "mixture") if control not in controls]
        if missing or len(fits) < len(self.needs) - 1:
            raise ValueError(
                f"needs must name a Gaussian, a mixture and other fits of different names; of {len(self.needs) - 1} "
                f"fits the names are {', '.join(fits) or 'none'}, the families {', '.join(controls) or 'none'}"
            )
        table = []
        for name, values in scores.items():
            done, size = read_done(fits[name]), prior_bytes(fits[name] / PRIOR)
            row = {"prior": name, "family": done["family"], "log_prob": round(values.mean().item(), 3)}
            row["standard_error"] = round(clustered_error(values, network), 3)
            row |= {key: done["metrics"].get(key, "") for key in ("kind", "monte_carlo_error", "elbo")}
            for control in ("gaussian", "mixture"):
                over = values - controls[control]
                row[f"over_{control}"] = round(over.mean().item(), 3)
                row[f"over_{control}_error"] = round(clustered_error(over, network), 3)
            drawn = done["metrics"]["samples"]["drawn"]
            row |= {key: drawn[key] for key in ("frechet", "fidelity", "coverage", "recall_real", "recall_samples")}
            table.append(row | {"megabytes": round(size / 1e6, 3), "kernels": len(values), "of": len(kernels.test)})
        write_table(folder / "record" / f"{self.name}.csv", table)
        priors = {name: load_prior(fit / PRIOR) for name, fit in fits.items()}
        plot_families(kernels.test, priors, folder / "record" / f"{self.name}.png", count=36, columns=5)
        print_table([{key: row[key] for key in _SHOWN} for row in table])
        return {"density": table}


_SHOWN = (
    "prior",
    "log_prob",
    "standard_error",
    "kind",
    "over_gaussian",
    "over_mixture",
    "recall_real",
    "recall_samples",
)


def check_unseen(path: Path, priors: dict[str, Prior]) -> None:
    """Raises ``ValueError`` where a prior was fitted to the kernels of a file that it is to be judged by."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    for name, prior in priors.items():
        source = prior.details.get("source")
        if isinstance(source, dict) and digest and source.get("sha256") == digest:
            raise ValueError(
                f"{name!r} was fitted to {path}, so it cannot be judged by it; give the kernels that the fit held out, "
                "kernels/kernels.safetensors in the fit's folder"
            )


def evaluate_priors(
    priors: dict[str, Prior], train: Tensor, held_out: Tensor, samples: int = SAMPLES
) -> list[dict[str, Any]]:
    """Compares priors on kernels, a row each.

    Args:
        priors: By name.
        train: Kernels ``(n, c, k, k)`` of the same law, such as those a prior was fitted to, to which distances of
            samples are measured.
        held_out: The kernels whose log p counts.
        samples: Latents per kernel where log p is a lower bound.

    Returns:
        For the kernels themselves, each prior, and its draws without noise where it has any: log p in nats per kernel,
        its kind and Monte Carlo error, log p by quadrature for VAEs of up to two latents, the ELBO, seconds per 100,000
        samples, bytes of the parameters, and all of :mod:`training.fits.statistics`; empty where there is none.

    Raises:
        ValueError: A prior is for kernels of another shape.
    """
    for name, prior in priors.items():
        if prior.kernel_shape != tuple(held_out.shape[1:]):
            raise ValueError(
                f"{name!r} is a prior over {prior.kernel_shape} kernels, the file holds {tuple(held_out.shape[1:])}"
            )
    rows: list[dict[str, Any]] = []
    for name, prior in priors.items():
        statistics = sample_statistics(prior, train, held_out)
        if not rows:
            rows.append({"prior": "(the kernels)"} | dict.fromkeys(_MEASURED, "") | _flat(statistics["real"]))
        for label in ("drawn", "mean") if prior.has_noise else ("drawn",):
            found = score(prior, held_out, samples)[1] if label == "drawn" else {}
            found["seconds_per_100000"] = _sampling_seconds(prior, noise=label == "drawn")
            found["bytes"] = sum(tensor.nbytes for tensor in prior.state_dict().values())
            if label == "drawn" and _has_quadrature(prior):
                exact = prior.log_prob_by_quadrature(thin(held_out, MOST).to(prior.device), width=8.0).mean()
                found["by_quadrature"] = round(exact.item(), 3)
            row = {"prior": name if label == "drawn" else f"{name}, noise=False"}
            rows.append(row | {key: found.get(key, "") for key in _MEASURED} | _flat(statistics[label]))
    return rows


_MEASURED = ("log_prob", "kind", "monte_carlo_error", "by_quadrature", "elbo", "kernels", "seconds_per_100000", "bytes")


def _has_quadrature(prior: Prior) -> bool:
    return isinstance(prior, KernelVAE) and prior.latent_dim <= 2 and not getattr(prior, "transitions", 0)


def _flat(statistics: dict[str, Any]) -> dict[str, Any]:
    """Writes statistics of several numbers as one text each."""
    flat = {}
    for key, value in statistics.items():
        values = list(value.values()) if isinstance(value, dict) else value
        name = f"{key} {' '.join(f'({lag})' for lag in value)}" if isinstance(value, dict) else key
        flat[name] = " ".join(map(str, values)) if isinstance(values, list) else values
    return flat


def transposed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns a table with a row per prior into one with a row per figure, which fits a screen."""
    first, *figures = rows[0]
    return [{first: figure} | {row[first]: row[figure] for row in rows} for figure in figures]


def _sampling_seconds(prior: Prior, noise: bool, n: int = 100_000, repeats: int = 3) -> float:
    """Returns the least time of a few to draw ``n`` kernels, in seconds."""
    prior.sample(min(n, prior.chunk), noise=noise)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        prior.sample(n, noise=noise)
        times.append(time.perf_counter() - start)
    return float(f"{min(times):.3g}")


def prior_bytes(folder: Path) -> int:
    """Returns the size of a prior's folder, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints rows of equal keys as an aligned table."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows of equal keys as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())
