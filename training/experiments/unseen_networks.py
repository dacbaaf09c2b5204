"""How priors describe the kernels of networks that were held out as a whole."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dwp_init import load_prior
from training.engine.records import print_table, read_config, read_done, write_table
from training.engine.stage import Context, Stage
from training.fits.evaluate import best_scale
from training.fits.score import SAMPLES, SMOKE, score
from training.fits.statistics import compare
from training.kernels.kernelset import KernelSet
from training.starts.priors import bundled_digests

FIRST_EDITION = {  # by kind and size of the kernels
    "dense-3x3": "tinyimagenet-3x3",
    "depthwise-3x3": "tinyimagenet-dw3x3",
}
_DRAWS = 10_000  # as fits draw for their statistics
_PRINTED = ("kind", "held_out", "fit", "log_prob", "gaussian_log_prob", "over_gaussian", "accuracy", "first_edition")


@dataclass(frozen=True)
class UnseenNetworks(Stage):
    """Collects what fits are worth on the networks that they hold out, and what the first edition is worth there.

    Records ``<name>.csv``, a row for each fit: log p of held-out kernels at a root mean square of 1, that of a Gaussian
    fitted to the same kernels, of white noise, and of the first edition's prior at the scale that is best for the
    kernels of the fit; and the accuracy of the nearest-neighbour test of draws, and of the kernels of the fit, against
    those held out.

    Args:
        needs: The fits.
        name: Base name of the CSV file.
    """

    name: str = "unseen_networks"

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*FIRST_EDITION.values())

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        table = [_row(context.out / need, context) for need in self.needs]
        write_table(folder / "record" / f"{self.name}.csv", table)
        print_table([{key: row[key] for key in _PRINTED} for row in table])
        return {"unseen": table}


def _row(fit: Path, context: Context) -> dict[str, Any]:
    config, done = read_config(fit), read_done(fit)
    (need,) = config["needs"]
    kernels, source = KernelSet.load(context.out / need), read_done(context.out / need)["source"]
    kind = f"{source['kind']}-{'x'.join(map(str, source['size']))}"
    metrics = done["metrics"]
    drawn, real = (metrics["samples"][row] for row in ("drawn", "real"))
    return {
        "kind": kind,
        "held_out": " ".join(sorted(map(_stem, source["held_out_families"]["test"]))),
        "fit": config["settings"]["name"],
        "family": done["family"],
        "mirrored": source.get("mirrored", False),
        "fitted": len(kernels.train),
        "kernels": len(kernels.test),
        "log_prob": metrics["log_prob"],
        "gaussian_log_prob": metrics["gaussian_log_prob"],
        "over_gaussian": round(metrics["log_prob"] - metrics["gaussian_log_prob"], 3),
        "white_noise_log_prob": metrics["white_noise_log_prob"],
        "accuracy": drawn["accuracy"],
        "accuracy_of_fitted_kernels": real["accuracy"],
        "nearest": drawn["fidelity"],
        "nearest_held_out": real["fidelity"],
        **_first_edition(kind, kernels, context.smoke),
    }


def _stem(place: str) -> str:
    """Returns the name of a family without the path of its file and what it ends in."""
    return place.rpartition("/")[2].split(".safetensors")[0]


def _first_edition(kind: str, kernels: KernelSet, smoke: bool) -> dict[str, Any]:
    """Returns log p of the test kernels under the first edition's prior, and how its draws are told from them."""
    name = FIRST_EDITION.get(kind, "")
    if not name:
        return {"first_edition": "", "first_log_prob": "", "first_accuracy": ""}
    prior = load_prior(name)
    scale = best_scale(prior, kernels.train)
    effort = SMOKE if smoke else {"samples": SAMPLES}
    log_prob = score(prior, kernels.test / scale, **effort)[1]["log_prob"] - prior.dim * math.log(scale)
    draws = scale * prior.sample(_DRAWS, torch.Generator().manual_seed(0))
    accuracy = compare(draws, kernels.train, kernels.test)["accuracy"]
    return {"first_edition": name, "first_log_prob": round(log_prob, 3), "first_accuracy": round(accuracy, 4)}
