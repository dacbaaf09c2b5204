"""Table 1: how much the auxiliary bound gives away after training, by its distance to the importance-weighted one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwp_init import bayes
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.few_labels import DWP_FIXED, DWP_PRIOR, DWP_SEMI_IMPLICIT, FROM_DWP, Experiment
from training.experiments.paired import mean_sd
from training.starts.priors import bundled_digests

BOUNDS = ("auxiliary", "iwae", "blind")
TRAINED_BY = (DWP_PRIOR, DWP_FIXED, DWP_SEMI_IMPLICIT)
NETWORKS_DRAWN = 10  # networks by which the data's part of the bound is estimated


@dataclass(frozen=True)
class Gap(Stage):
    """Trains networks with the prior dwp, and measures the gap of their bound layer by layer (Appendix B).

    Args:
        name: Base name of the CSV files: ``<name>.csv`` and, with ``draws``, ``<name>_draws.csv``, the gaps of the
            semi-implicit bounds in the same networks.
        vaes: Bundled VAEs, one for each kernel size.
        priors: What the networks are trained by: ``dwp``, with r(z|w; ψ) trained, ``dwp-fixed``, and
            ``dwp-semi-implicit``, the semi-implicit bound with 10 draws.
        filters: Channels of the convolutions.
        size: Images in the training set.
        splits: Number of splits.
        steps: Steps of Algorithm 1.
        batch_size: Images per step.
        lr: Initial learning rate.
        subset: Kernels of a layer on which a step evaluates the divergence.
        samples: K of the importance-weighted bound.
        kernels: Random kernels of a layer for which the gap is measured.
        draws: Each K at which the gap of the semi-implicit bounds is measured; none by default.
    """

    name: str = "table1_gap"
    vaes: tuple[str, ...] = ("notmnist-7x7-vae", "notmnist-5x5-vae")
    priors: tuple[str, ...] = (DWP_PRIOR, DWP_FIXED)
    filters: tuple[int, int] = (32, 128)
    size: int = 200
    splits: int = 5
    steps: int = 10_000
    batch_size: int = 50
    lr: float = 1e-3
    subset: int = 512
    samples: int = 10_000
    kernels: int = 512
    draws: tuple[int, ...] = ()

    def data_sets(self) -> tuple[str, ...]:
        return ("mnist",)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.vaes)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Measures what is missing, on ``context.engine``."""
        check_counts(splits=self.splits, samples=self.samples, kernels=self.kernels)
        if not self.priors or set(self.priors) - set(TRAINED_BY) or len(set(self.priors)) < len(self.priors):
            raise ValueError(f"priors must be some of {', '.join(TRAINED_BY)}, each once; got {self.priors}")
        keys = [(prior, split) for prior in self.priors for split in range(self.splits)]
        job = partial(self.measure, self.experiment(context))
        settings: dict[str, Any] = {"total": len(keys), "each": self.steps, "engine": context.engine}
        with Sweep(folder, ("prior", "split"), desc=self.name, **settings) as sweep:
            rows = sweep(job, keys)
        table = gap_table(rows)
        write_table(folder / "record" / f"{self.name}.csv", table)
        if self.draws:
            write_table(folder / "record" / f"{self.name}_draws.csv", draws_table(rows))
        print_table(table)
        return {"table": table}

    def experiment(self, context: Context) -> Experiment:
        """Reads what trains the networks, which are those of Fig. 2(a)."""
        schedule = bayes.Schedule(self.steps, self.batch_size, self.lr)
        settings: dict[str, Any] = {"scale": bayes.SCALE, "kernels": self.subset, "samples": NETWORKS_DRAWN}
        settings["estimator"] = "local"
        return Experiment.read(context, "mnist", self.filters, (self.vaes, ()), schedule, **settings)

    def measure(self, experiment: Experiment, key: tuple[str, int], progress: Progress) -> list[Row]:
        """Trains one network and measures its gaps, in nats per kernel."""
        prior, split = key
        trainer = experiment.trainer(self.size, [split], prior, FROM_DWP)
        trainer.run(progress=progress)
        (objective,) = trainer.trained()
        generator = torch.Generator(trainer.images.device).manual_seed(split)
        gaps = bayes.bound_gaps(objective, self.samples, self.kernels, generator, draws=self.draws)
        data = -_expected_nll(objective, trainer.images[0], trainer.labels[0], split)
        return [{"prior": prior, "split": split, "data": round(data, 3), "layers": [layer_row(gap) for gap in gaps]}]


def gap_table(rows: Sequence[Row]) -> list[Row]:
    """Averages over splits: a row for each prior and layer, and for each prior one of the bound in total."""
    table: list[Row] = []
    for prior in dict.fromkeys(row["prior"] for row in rows):
        runs = [row for row in rows if row["prior"] == prior]
        for layers in zip(*(run["layers"] for run in runs), strict=True):
            table.append({"prior": prior, **_mean_layer(layers)})
        table.append({"prior": prior, **_mean_total(runs)})
    return table


def draws_table(rows: Sequence[Row]) -> list[Row]:
    """Averages the gaps of the semi-implicit bounds over splits, in nats per kernel over all layers.

    A row for each prior, proposal and K, with the share that is left of Algorithm 1's gap in the same networks.
    """
    table: list[Row] = []
    for prior in dict.fromkeys(row["prior"] for row in rows):
        runs = [row["layers"] for row in rows if row["prior"] == prior]
        of_algorithm_1 = _gaps(runs, lambda layer: layer["auxiliary"])
        for bound in runs[0][0]["semi_implicit"]:
            gaps = _gaps(runs, partial(_semi_implicit, bound=bound))
            latents, draws = bound.split()
            found: Row = {"trained_by": prior, "latents": latents, "draws": int(draws)}
            found |= mean_sd("gap_per_kernel", gaps, 3) | mean_sd("share_of_algorithm_1", gaps / of_algorithm_1, 3)
            table.append(found | {"splits": len(runs)})
    return table


def _semi_implicit(layer: Row, bound: str) -> float:
    return float(layer["semi_implicit"][bound])


def _gaps(runs: Sequence[Sequence[Row]], bound: Callable[[Row], float]) -> Tensor:
    """Returns how far a bound lies below the importance-weighted one in each run, in nats per kernel of all layers."""
    kernels: int = sum(layer["kernels"] for layer in runs[0])
    return _double(sum(layer["kernels"] * (layer["iwae"] - bound(layer)) for layer in run) / kernels for run in runs)


def _mean_layer(runs: Sequence[Row]) -> Row:
    """Averages a layer's bounds on -KL over splits; in nats of the layer, with the gap in nats per kernel too."""
    total = runs[0]["kernels"]
    found: Row = {"layer": runs[0]["layer"], "kernels": total, "looked_at": runs[0]["looked_at"]}
    bounds = {name: _double(total * run[name] for run in runs) for name in BOUNDS}
    gaps = [run["iwae"] - run["auxiliary"] for run in runs]
    return found | _means(bounds, _double(total * gap for gap in gaps), _double(gaps), _mean_error(runs))


def _mean_total(runs: Sequence[Row]) -> Row:
    """Averages the bounds in total, including the part of the data, as in Table 1."""
    kernels = sum(layer["kernels"] for layer in runs[0]["layers"])
    sums = {name: [sum(x["kernels"] * x[name] for x in run["layers"]) for run in runs] for name in BOUNDS}
    bounds = {name: _double(run["data"] + kl for run, kl in zip(runs, sums[name], strict=True)) for name in BOUNDS}
    gaps = bounds["iwae"] - bounds["auxiliary"]
    layers = zip(*(run["layers"] for run in runs), strict=True)
    error = sum((layer[0]["kernels"] / kernels * _mean_error(layer)) ** 2 for layer in layers) ** 0.5
    found: Row = {"layer": "bound", "kernels": kernels, "looked_at": ""}
    return found | _means(bounds, gaps, gaps / kernels, error)


def _means(bounds: dict[str, Tensor], gaps: Tensor, per_kernel: Tensor, error: float) -> Row:
    found: Row = {}
    for name, values in bounds.items():
        found |= mean_sd(name, values, 0)
    found |= mean_sd("gap", gaps, 0) | mean_sd("gap_per_kernel", per_kernel, 3)
    return found | {"gap_per_kernel_error": round(error, 4), "splits": len(gaps)}


def _double(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _mean_error(runs: Sequence[Row]) -> float:
    """Returns the standard error, over kernels, of a layer's gap per kernel, averaged over splits."""
    return float(sum(run["error"] ** 2 for run in runs) ** 0.5) / len(runs)


def layer_row(gap: bayes.LayerGap) -> Row:
    """Averages the bounds of a layer over the kernels of its sample, in nats per kernel."""
    count = len(gap.gap)
    spread = gap.gap.std() if count > 1 else torch.zeros(())
    bounds = {"auxiliary": gap.auxiliary, "iwae": gap.tight, "blind": gap.blind}
    return {
        "layer": gap.layer,
        "kernels": gap.total,
        "looked_at": count,
        **{name: round(values.mean().item(), 4) for name, values in bounds.items()},
        "error": round((spread / count**0.5).item(), 4),
        "semi_implicit": {
            f"{latents} {draws}": round(values.mean().item(), 4)
            for (latents, draws), values in gap.semi_implicit.items()
        },
    }


@torch.no_grad()
def _expected_nll(objective: bayes.Objective, images: Tensor, labels: Tensor, seed: int) -> float:
    """Returns -E_q log p(D|w) of the training set, in nats, from networks drawn from the posterior."""
    generator = torch.Generator(images.device).manual_seed(seed)
    probabilities = bayes.predict_samples(objective.network, images, NETWORKS_DRAWN, generator)
    picked = probabilities[:, torch.arange(len(labels)), labels]
    return -picked.clamp_min(1e-30).log().sum(1).mean().item()
