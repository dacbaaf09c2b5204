"""A table of what priors are like: log p of held-out kernels, cost, and statistics of samples."""

import hashlib
import math
import timeit
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dwp_init import KernelVAE, Prior
from training.fits.score import MOST, SAMPLES, score
from training.fits.statistics import sample_statistics
from training.images.split import thin

AtScale: TypeAlias = Literal["given", "best"]
SCALES: tuple[AtScale, ...] = get_args(AtScale)
FAR = 1.25  # ratio of scales which costs a Gaussian over 3×3 kernels half a nat
_FITTED, _LATENTS = 1000, 100  # kernels, and latents of each, by which the best scale is found
_REACH = 3.0  # how far it is searched from the ratio of root mean squares, in logarithms
_MEASURED = (
    "scale",
    "log_prob",
    "kind",
    "monte_carlo_error",
    "by_quadrature",
    "elbo",
    "kernels",
    "seconds_per_100000",
    "bytes",
)


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
    priors: dict[str, Prior], train: Tensor, held_out: Tensor, samples: int = SAMPLES, scale: AtScale = "given"
) -> list[dict[str, Any]]:
    """Compares priors on kernels.

    Warns of a prior whose draws and the held-out kernels differ in scale by more than :data:`FAR`, because its log p
    then tells more of scales than of shapes.

    Args:
        priors: The priors by name.
        train: Kernels ``(n, c, *size)`` of the same law, such as those a prior was fitted to; distances of samples are
            measured to them.
        held_out: The kernels whose log p counts, of the same shape.
        samples: Latents per kernel where log p is a lower bound.
        scale: ``best`` compares shapes alone, of kernels s · w with w from the prior and the factor s that maximises
            log p of ``train``: what a prior initialises has the scale of its layer, whatever the prior's own. With
            ``given`` s is 1.

    Returns:
        A row for the kernels themselves, for each prior, and for its draws without noise where it has any: s, log p in
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
        factor = best_scale(prior, train, samples) if scale == "best" else 1.0
        statistics = sample_statistics(prior, train, held_out, scale=factor)
        if scale == "given":
            _warn_if_far(name, statistics["drawn"]["rms"], statistics["real"]["rms"])
        if not rows:
            rows.append({"prior": "(the kernels)"} | dict.fromkeys(_MEASURED, "") | _flat(statistics["real"]))
        for label, noise in (("drawn", True), ("mean", False)) if prior.has_noise else (("drawn", True),):
            found = _measure(prior, held_out, samples, factor) if noise else {}
            found["scale"] = float(f"{factor:.4g}")
            found["seconds_per_100000"] = sampling_seconds(prior, noise)
            found["bytes"] = sum(tensor.nbytes for tensor in prior.state_dict().values())
            row = {"prior": name if noise else f"{name}, noise=False"}
            rows.append(row | {key: found.get(key, "") for key in _MEASURED} | _flat(statistics[label]))
    return rows


def best_scale(prior: Prior, kernels: Tensor, samples: int = SAMPLES) -> float:
    """Returns the factor s by which the prior's kernels are most like others: the maximum of log p(w / s) - d · log s.

    Args:
        prior: The prior.
        kernels: The kernels w, ``(n, c, *size)`` of d numbers; of many, some are used, evenly spaced.
        samples: Latents per kernel where log p is a lower bound.
    """
    some = thin(kernels, _FITTED)
    drawn = prior.sample(_FITTED, torch.Generator(prior.device).manual_seed(0)).cpu()
    start = math.log(_rms(some) / _rms(drawn))

    def loss(log_scale: float) -> float:
        values = score(prior, some / math.exp(log_scale), min(samples, _LATENTS))[0]
        return prior.dim * log_scale - values.double().mean().item()

    found = minimize_scalar(loss, bounds=(start - _REACH, start + _REACH), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x)


def _rms(kernels: Tensor) -> float:
    return kernels.double().square().mean().sqrt().item()


def _warn_if_far(name: str, drawn: float, real: float) -> None:
    if max(drawn / real, real / drawn) > FAR:
        print(
            f"warning: draws of {name!r} have a root mean square of {drawn:.4g} and the kernels of {real:.4g}, so that "
            "log p tells more of their scales than of their shapes; give --scale best to compare shapes alone"
        )


def _measure(prior: Prior, held_out: Tensor, samples: int, scale: float) -> dict[str, Any]:
    held_out, volume = held_out / scale, prior.dim * math.log(scale)
    found = score(prior, held_out, samples)[1]
    if isinstance(prior, KernelVAE) and prior.latent_dim <= 2 and not getattr(prior, "transitions", 0):
        values = prior.log_prob_by_quadrature(thin(held_out, MOST).to(prior.device), width=8.0)
        found["by_quadrature"] = values.mean().item()
    logs = {key: round(found[key] - volume, 3) for key in ("log_prob", "elbo", "by_quadrature") if key in found}
    return found | logs


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
