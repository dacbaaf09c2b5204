"""A table of what priors are like: log p of held-out kernels, cost, and statistics of samples."""

import hashlib
import timeit
from pathlib import Path
from typing import Any

from torch import Tensor

from dwp_init import KernelVAE, Prior
from training.fits.score import MOST, SAMPLES, score
from training.fits.statistics import sample_statistics
from training.images.split import thin

_MEASURED = ("log_prob", "kind", "monte_carlo_error", "by_quadrature", "elbo", "kernels", "seconds_per_100000", "bytes")


def check_unseen(path: Path, priors: dict[str, Prior]) -> None:
    """Raises ``ValueError`` where a prior was fitted to the kernels of the file on which it is to be evaluated."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    for name, prior in priors.items():
        source = prior.details.get("source")
        if isinstance(source, dict) and digest and source.get("sha256") == digest:
            raise ValueError(
                f"{name!r} was fitted to {path}, so it cannot be evaluated on it; give the kernels that the fit held "
                "out, kernels/kernels.safetensors in the fit's folder"
            )


def evaluate_priors(
    priors: dict[str, Prior], train: Tensor, held_out: Tensor, samples: int = SAMPLES
) -> list[dict[str, Any]]:
    """Compares priors on kernels.

    Args:
        priors: The priors by name.
        train: Kernels ``(n, c, *size)`` of the same law, such as those a prior was fitted to; distances of samples are
            measured to them.
        held_out: The kernels whose log p counts, of the same shape.
        samples: Latents per kernel where log p is a lower bound.

    Returns:
        A row for the kernels themselves, for each prior, and for its draws without noise where it has any: log p in
        nats per kernel, its kind and Monte Carlo error, log p by quadrature for VAEs of at most two latents, the ELBO,
        seconds per 100,000 samples, bytes of the parameters, and all of :mod:`training.fits.statistics`; empty where
        a value does not apply.

    Raises:
        ValueError: A prior is for kernels of another shape.
    """
    for name, prior in priors.items():
        if prior.kernel_shape != tuple(held_out.shape[1:]):
            raise ValueError(
                f"{name!r} is a prior over {prior.kernel_shape} kernels, the file holds {tuple(held_out.shape[1:])}; "
                "leave it out, or give kernels of its shape"
            )
    rows: list[dict[str, Any]] = []
    for name, prior in priors.items():
        statistics = sample_statistics(prior, train, held_out)
        if not rows:
            rows.append({"prior": "(the kernels)"} | dict.fromkeys(_MEASURED, "") | _flat(statistics["real"]))
        for label, noise in (("drawn", True), ("mean", False)) if prior.has_noise else (("drawn", True),):
            found = _measure(prior, held_out, samples) if noise else {}
            found["seconds_per_100000"] = sampling_seconds(prior, noise)
            found["bytes"] = sum(tensor.nbytes for tensor in prior.state_dict().values())
            row = {"prior": name if noise else f"{name}, noise=False"}
            rows.append(row | {key: found.get(key, "") for key in _MEASURED} | _flat(statistics[label]))
    return rows


def _measure(prior: Prior, held_out: Tensor, samples: int) -> dict[str, Any]:
    found = score(prior, held_out, samples)[1]
    if isinstance(prior, KernelVAE) and prior.latent_dim <= 2 and not getattr(prior, "transitions", 0):
        values = prior.log_prob_by_quadrature(thin(held_out, MOST).to(prior.device), width=8.0)
        found["by_quadrature"] = round(values.mean().item(), 3)
    return found


def _flat(statistics: dict[str, Any]) -> dict[str, Any]:
    """Joins statistics of several numbers to one text each."""
    flat: dict[str, Any] = {}
    for key, value in statistics.items():
        values = list(value.values()) if isinstance(value, dict) else value
        name = f"{key} {' '.join(f'({lag})' for lag in value)}" if isinstance(value, dict) else key
        flat[name] = " ".join(map(str, values)) if isinstance(values, list) else values
    return flat


def transposed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns a table with a row per prior into one with a row per quantity, which fits on a screen."""
    first, *figures = rows[0]
    return [{first: figure} | {row[first]: row[figure] for row in rows} for figure in figures]


def sampling_seconds(prior: Prior, noise: bool) -> float:
    """Returns the shortest of three times to draw 100,000 kernels, in seconds, to three significant digits."""
    prior.sample(min(100_000, prior.chunk), noise=noise)
    seconds = timeit.repeat(lambda: prior.sample(100_000, noise=noise), number=1, repeat=3)
    return float(f"{min(seconds):.3g}")
