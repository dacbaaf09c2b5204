"""Table 1: how much the auxiliary bound gives away after training, by its distance to the importance-weighted one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from training import bayes
from training.engine.options import check_counts
from training.engine.records import print_table, read_metrics, record_metrics, write_table
from training.engine.stage import Context, Stage
from training.engine.workers import Progress, run_jobs
from training.experiments import few_labels
from training.experiments.few_labels import DWP, DWP_FIXED, FROM_DWP, Experiment, LearnedPriors
from training.starts.priors import bundled_digests

BOUNDS = ("auxiliary", "iwae", "blind")
DRAWS = 10  # networks by which the data's part of the bound is estimated


@dataclass(frozen=True)
class Gap(Stage):
    """Trains networks with the prior dwp, and measures the gap of their bound layer by layer (Appendix B).

    Args:
        name: Of the record.
        vaes: Bundled VAEs, one for each kernel size.
        priors: ``dwp``, with r(z|w; ψ) trained, and ``dwp-fixed``.
        filters: Channels of the convolutions.
        size: Images in the training set.
        splits: How many.
        steps: Of Algorithm 1.
        batch_size: Images per step.
        lr: Initial learning rate.
        subset: Kernels of a layer that a step looks at.
        samples: K of the importance-weighted bound.
        kernels: Random kernels of a layer for which the gap is measured.
    """

    name: str = "table1_gap"
    vaes: tuple[str, ...] = ("notmnist-7x7-vae", "notmnist-5x5-vae")
    priors: tuple[str, ...] = (DWP, DWP_FIXED)
    filters: tuple[int, int] = (32, 128)
    size: int = 200
    splits: int = 5
    steps: int = 10_000
    batch_size: int = 50
    lr: float = 1e-3
    subset: int = 512
    samples: int = 10_000
    kernels: int = 512

    def data_sets(self) -> tuple[str, ...]:
        return ("mnist",)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.vaes)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Measures what is missing, on ``context.workers`` processes."""
        check_counts(splits=self.splits, samples=self.samples, kernels=self.kernels)
        unknown = [prior for prior in self.priors if prior not in (DWP, DWP_FIXED)]
        if unknown or not self.priors:
            raise ValueError(f"priors must be some of {DWP!r}, {DWP_FIXED!r}; got {self.priors}")
        keys = [(prior, split) for prior in self.priors for split in range(self.splits)]
        done = {(row["prior"], row["split"]): row for row in read_metrics(folder)}
        job = _Job(self, self._experiment(context))
        with tqdm(total=len(keys) * self.steps, unit="step", desc=self.name) as bar:
            bar.update(len(done) * self.steps)
            missing = [key for key in keys if key not in done]
            for row in run_jobs(job.measure, missing, context.workers, lambda steps, *_: bar.update(steps)):
                record_metrics(folder, **row)
                done[row["prior"], row["split"]] = row
        return self._summarize(folder / "record", [done[key] for key in keys])

    def _experiment(self, context: Context) -> Experiment:
        """What trains the networks: as those of Fig. 2(a)."""
        few_labels.check_filters("mnist", self.filters)
        schedule = bayes.Schedule(self.steps, self.batch_size, self.lr)
        learned = LearnedPriors.load(self.vaes, ())
        data = few_labels.Data().load(context)
        return Experiment("mnist", self.filters, *data, learned, schedule, bayes.SCALE, self.subset, DRAWS)

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        table = []
        for prior in self.priors:
            runs = [row for row in rows if row["prior"] == prior]
            layers = [[run["layers"][i] for run in runs] for i in range(len(runs[0]["layers"]))]
            table += [{"prior": prior, **_mean_layer(layer)} for layer in layers]
            table.append({"prior": prior, **_mean_total(runs)})
        write_table(record / f"{self.name}.csv", table)
        print_table(table)
        return {"table": table}


def _mean_layer(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Averages a layer's bounds on -KL over splits; nats of the whole layer, and the gap in nats per kernel."""
    total = runs[0]["kernels"]
    found: dict[str, Any] = {"layer": runs[0]["layer"], "kernels": total, "looked_at": runs[0]["looked_at"]}
    for name in BOUNDS:
        found |= _mean_sd(name, [total * run[name] for run in runs], 0)
    found |= _mean_sd("gap", [total * (run["iwae"] - run["auxiliary"]) for run in runs], 0)
    found |= _mean_sd("gap_per_kernel", [run["iwae"] - run["auxiliary"] for run in runs], 3)
    return found | {"gap_per_kernel_error": round(_mean_error(runs), 4), "splits": len(runs)}


def _mean_total(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Averages the whole bounds, the data's part included, as in Table 1."""
    kernels = sum(layer["kernels"] for layer in runs[0]["layers"])
    found: dict[str, Any] = {"layer": "bound", "kernels": kernels, "looked_at": ""}
    sums = {name: [run["data"] + sum(x["kernels"] * x[name] for x in run["layers"]) for run in runs] for name in BOUNDS}
    for name in BOUNDS:
        found |= _mean_sd(name, sums[name], 0)
    gaps = [tight - auxiliary for tight, auxiliary in zip(sums["iwae"], sums["auxiliary"], strict=True)]
    found |= _mean_sd("gap", gaps, 0) | _mean_sd("gap_per_kernel", [gap / kernels for gap in gaps], 3)
    layers = zip(*(run["layers"] for run in runs), strict=True)
    error = sum((layer[0]["kernels"] / kernels * _mean_error(layer)) ** 2 for layer in layers) ** 0.5
    return found | {"gap_per_kernel_error": round(error, 4), "splits": len(runs)}


def _mean_error(runs: Sequence[dict[str, Any]]) -> float:
    """Returns the standard error, over kernels, of a layer's gap per kernel, averaged over splits."""
    return (sum(run["error"] ** 2 for run in runs) ** 0.5) / len(runs)


def _mean_sd(name: str, values: list[float], digits: int) -> dict[str, Any]:
    numbers = torch.tensor(values, dtype=torch.float64)
    sd = round(numbers.std().item(), digits) if len(values) > 1 else ""
    return {name: round(numbers.mean().item(), digits), f"{name}_sd": sd}


@dataclass(frozen=True)
class _Job:
    stage: Gap
    experiment: Experiment

    def measure(self, key: tuple[str, int], progress: Progress) -> dict[str, Any]:
        """Trains one network and measures its gaps, in nats per kernel."""
        prior, split = key
        trainer = self.experiment.trainer(self.stage.size, [split], prior, FROM_DWP)
        trainer.run(progress=progress)
        (objective,) = trainer.trained()
        generator = torch.Generator(trainer.images.device).manual_seed(split)
        gaps = bayes.bound_gaps(objective, self.stage.samples, self.stage.kernels, generator)
        data = -_expected_nll(objective, trainer.images[0], trainer.labels[0], split)
        return {"prior": prior, "split": split, "data": round(data, 3), "layers": [_layer(gap) for gap in gaps]}


def _layer(gap: bayes.LayerGap) -> dict[str, Any]:
    count = len(gap.gap)
    spread = gap.gap.std() if count > 1 else torch.zeros(())
    bounds = {"auxiliary": gap.auxiliary, "iwae": gap.tight, "blind": gap.blind}
    return {
        "layer": gap.layer,
        "kernels": gap.total,
        "looked_at": count,
        **{name: round(values.mean().item(), 4) for name, values in bounds.items()},
        "error": round((spread / count**0.5).item(), 4),
    }


@torch.no_grad()
def _expected_nll(objective: bayes.Objective, images: Tensor, labels: Tensor, seed: int) -> float:
    """Returns -E_q log p(D|w) of the training set, in nats, from networks drawn from the posterior."""
    generator = torch.Generator(images.device).manual_seed(seed)
    probabilities = bayes.predict_samples(objective.network, images, DRAWS, generator)
    picked = probabilities[:, torch.arange(len(labels)), labels]
    return -picked.clamp_min(1e-30).log().sum(1).mean().item()
