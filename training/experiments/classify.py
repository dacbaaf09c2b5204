"""Classification from few labels (Section 4.1, Fig. 2 and 5): priors and initialisations on paired splits."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training import bayes
from training.engine.options import check_counts
from training.engine.records import (
    load_checkpoint,
    print_table,
    read_done,
    read_metrics,
    record_metrics,
    save_checkpoint,
    write_table,
)
from training.engine.stage import Context, Stage
from training.engine.workers import Progress, run_jobs
from training.experiments import few_labels
from training.experiments.few_labels import (
    CLASSES,
    DWP,
    FROM_DWP,
    FROM_XAVIER,
    GAUSSIAN,
    LOG_UNIFORM,
    LOG_UNIFORM_AUTHORS,
    MIXTURE,
    NONE,
    NORMAL,
    PRIORS,
    STANDARD,
    Experiment,
    LearnedPriors,
)
from training.figures.experiments import plot_few_labels
from training.starts.priors import bundled_digests

METRICS = ("accuracy", "accuracy_mean_weights", "accuracy_one_sample", "nll", "brier", "ece", "ood_auroc")
SHOWN = ("size", "prior", "init", "accuracy", "accuracy_sd", "over_dwp", "over_dwp_sd", "nll", "ece")
BLOCK = 100  # steps between checkpoints

Key = tuple[int, int, str, str]  # size, split, prior, initialisation


@dataclass(frozen=True)
class Classify(Stage):
    """Trains the paper's network on small sets by Algorithm 1, with every prior and from both initialisations.

    The splits are stratified, the same for every prior and initialisation, and so are the networks' biases and
    classifiers. Test images are looked at once, after training; ``hold_out`` turns to training images instead.

    Args:
        name: Of the record; none is kept if empty.
        data: Name of the data set: ``mnist`` or ``cifar10``, with the paper's network for it.
        others: Name of the data set whose test images are the unknown ones of the OOD column; none if empty.
        filters: Channels of the convolutions.
        vaes: Bundled VAEs, one for each kernel size: the prior ``dwp``, and the initialisation of that name.
        mixtures: Bundled mixtures, for the other learned priors: themselves, the Gaussian of the same kernels, and
            ``normal``, N(0, s²) with s the root mean square of the same kernels.
        priors: The priors to compare, of :data:`training.experiments.few_labels.PRIORS`, each from draws of ``vaes``
            at their own scale.
        from_xavier: Those of them that are started from Xavier's initialisation too.
        sizes: Sizes of the training sets.
        splits: How many for each size; each has its own seed for the network too.
        first_split: Seed of the first.
        together: Splits that are trained in one pass: 1 on a CPU, where that is fastest, all on an accelerator.
        hold_out: Training images, the last ones, that no split takes and on which is tested: for choices.
        test_images: So many evenly spaced test images at the most, and as many of ``others``.
        steps: Of Algorithm 1, for every size.
        batch_size: Images per step.
        lr: Initial learning rate of everything: posterior, biases, classifier, reverse models.
        scale: Standard deviation of the posterior at the start.
        warm_up: Steps over which the weight of the divergences grows from 0.
        temperature: That weight, 1 in Bayes' rule.
        kernels: Kernels of a layer that a step looks at.
        samples: Networks of the ensemble.
    """

    name: str = "fig2a_mnist"
    data: str = "mnist"
    others: str = "notmnist"
    filters: tuple[int, ...] = (32, 128)
    vaes: tuple[str, ...] = ("notmnist-7x7-vae", "notmnist-5x5-vae")
    mixtures: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    priors: tuple[str, ...] = (DWP, MIXTURE, GAUSSIAN, LOG_UNIFORM, LOG_UNIFORM_AUTHORS, STANDARD, NORMAL, NONE)
    from_xavier: tuple[str, ...] = (DWP, STANDARD, NORMAL, NONE)
    sizes: tuple[int, ...] = (50, 100, 200, 500, 1000)
    splits: int = 10
    first_split: int = 0
    together: int = 1
    hold_out: int = 0
    test_images: int = 10_000
    steps: int = 10_000
    batch_size: int = 50
    lr: float = 1e-3
    scale: float = bayes.SCALE
    warm_up: int = 0
    temperature: float = 1.0
    kernels: int = 512
    samples: int = 10

    def data_sets(self) -> tuple[str, ...]:
        return (self.data, self.others) if self.others else (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.vaes, *self.mixtures)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.workers`` processes; a run in progress continues where it was."""
        self._check()
        keys = self._keys()
        done = {_key(row): row for row in read_metrics(folder)}
        job = _Job(self._experiment(context), folder)
        missing = [members for members in _passes(keys, self.together) if any(key not in done for key in members)]
        finished = len(keys) - sum(map(len, missing))
        size = {"total": len(keys) * self.steps, "initial": finished * self.steps}
        with tqdm(**size, unit="step", desc=self.name or folder.name) as bar:

            def show(steps: int, note: str = "") -> None:
                bar.update(steps)
                if note:
                    bar.set_postfix_str(note)

            for rows in run_jobs(job.train, missing, context.workers, show):
                for row in rows:
                    record_metrics(folder, **row)
                    done[_key(row)] = row
                job.checkpoint(tuple(map(_key, rows))).unlink(missing_ok=True)
        return self._summarize(folder / "record", [done[key] for key in keys])

    def _check(self) -> None:
        check_counts(splits=self.splits, together=self.together, samples=self.samples)
        for name, given in (("priors", self.priors), ("from_xavier", self.from_xavier)):
            if set(given) - set(PRIORS) or len(set(given)) != len(given) or not self.priors:
                raise ValueError(f"{name} must be some of {', '.join(PRIORS)}, each once; got {given}")
        if not self.sizes or any(size < 1 or size % CLASSES for size in self.sizes):
            raise ValueError(
                f"sizes must be multiples of the {CLASSES} classes, for stratified splits; got {self.sizes}"
            )
        if len(set(self.sizes)) != len(self.sizes):
            raise ValueError(f"sizes must be different; got {self.sizes}")

    def _keys(self) -> list[Key]:
        inits = {FROM_DWP: self.priors, FROM_XAVIER: [prior for prior in self.priors if prior in self.from_xavier]}
        return [
            (size, split, prior, init)
            for size in self.sizes
            for split in range(self.first_split, self.first_split + self.splits)
            for init, priors in inits.items()
            for prior in priors
        ]

    def _experiment(self, context: Context) -> Experiment:
        train, test, others = few_labels.Data(self.data, self.others, self.hold_out, self.test_images).load(context)
        few_labels.check_filters(self.data, self.filters)
        weight = {"warm_up": self.warm_up, "temperature": self.temperature}
        schedule = bayes.Schedule(self.steps, self.batch_size, self.lr, **weight)
        learned = LearnedPriors.load(self.vaes, self.mixtures)
        rest = (learned, schedule, self.scale, self.kernels, self.samples)
        return Experiment(self.data, self.filters, train, test, others, *rest)

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        table = summary(rows, METRICS if self.others else METRICS[:-1])
        if self.name:
            write_table(record / f"{self.name}_runs.csv", rows)
            write_table(record / f"{self.name}.csv", table)
            plot_few_labels(table, record / f"{self.name}.png", f"{self.data}, {self.splits} splits")
        print_table([{key: row[key] for key in SHOWN} for row in table])
        return {"table": table}


@dataclass(frozen=True)
class Selection(Stage):
    """Draws some priors' part of what :class:`Classify` found, or sets the tables of several of them side by side.

    Args:
        needs: The stages with the runs; of one, a figure is drawn.
        name: Of the record.
        priors: Which.
    """

    name: str = "fig5_gaussian"
    priors: tuple[str, ...] = (DWP, LOG_UNIFORM_AUTHORS, STANDARD, GAUSSIAN)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        table = []
        for need in self.needs:
            found = [row for row in read_done(context.out / need)["table"] if row["prior"] in self.priors]
            missing = set(self.priors) - {row["prior"] for row in found}
            if missing:
                raise ValueError(f"{need} has no runs of {', '.join(sorted(missing))}; add them to its priors")
            table += [{"runs": need, **row} if len(self.needs) > 1 else row for row in found]
        record = folder / "record"
        write_table(record / f"{self.name}.csv", table)
        if len(self.needs) == 1:
            plot_few_labels(table, record / f"{self.name}.png", f"{table[0]['splits']} splits")
        print_table([{key: row[key] for key in ("runs", *SHOWN) if key in row} for row in table])
        return {"table": table}


def summary(rows: list[dict[str, Any]], metrics: tuple[str, ...] = METRICS) -> list[dict[str, Any]]:
    """Averages runs over splits: a row per size, prior and initialisation, with each metric's mean and sd.

    ``over_dwp`` is how far the accuracy is above that of dwp from dwp on the same splits, in points; empty where that
    was not run.
    """
    found: dict[tuple[int, str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["size"], row["prior"], row["init"]), {})[row["split"]] = row
    return [_mean(key, runs, found.get((key[0], DWP, FROM_DWP), {}), metrics) for key, runs in found.items()]


def _named(key: Key) -> dict[str, Any]:
    return dict(zip(("size", "split", "prior", "init"), key, strict=True))


def _key(row: dict[str, Any]) -> Key:
    return row["size"], row["split"], row["prior"], row["init"]


def _mean(
    key: tuple[int, str, str],
    runs: dict[int, dict[str, Any]],
    reference: dict[int, dict[str, Any]],
    metrics: tuple[str, ...],
) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("size", "prior", "init"), key, strict=True))
    values = {name: torch.tensor([run[name] for run in runs.values()]) for name in metrics}
    row |= {"over_dwp": "", "over_dwp_sd": ""}
    if reference.keys() == runs.keys():
        values["over_dwp"] = values["accuracy"] - torch.tensor([reference[split]["accuracy"] for split in runs])
    for name, value in values.items():
        row[name] = round(value.mean().item(), 4)
        row[f"{name}_sd"] = round(value.std().item(), 4) if len(value) > 1 else ""
    return row | {"splits": len(runs)}


def _passes(keys: list[Key], together: int) -> Iterator[tuple[Key, ...]]:
    """Groups what is to be trained into passes of one size, prior and initialisation, in the order of the keys.

    The groups do not depend on what is done, so that a pass that is resumed is the same pass.
    """
    groups: dict[tuple[Any, ...], list[Key]] = {}
    for size, split, prior, init in keys:
        groups.setdefault((size, prior, init), []).append((size, split, prior, init))
    passes = [tuple(group[i : i + together]) for group in groups.values() for i in range(0, len(group), together)]
    order = {key: place for place, key in enumerate(keys)}
    return iter(sorted(passes, key=lambda members: order[members[0]]))


@dataclass(frozen=True)
class _Job:
    experiment: Experiment
    folder: Path

    def train(self, keys: tuple[Key, ...], progress: Progress) -> list[dict[str, Any]]:
        """Trains one pass, from its checkpoint if it has one; returns a row per split."""
        size, _, prior, init = keys[0]
        splits = [split for _, split, _, _ in keys]
        trainer = self.experiment.trainer(size, splits, prior, init)
        checkpoint = self.checkpoint(keys)
        if checkpoint.exists():
            trainer.load_state_dict(load_checkpoint(checkpoint))
            progress(trainer.step * len(keys))
        while trainer.step < self.experiment.schedule.steps:
            trainer.run(BLOCK, lambda steps, *note: progress(steps * len(keys), *note))
            save_checkpoint(checkpoint, trainer.state_dict())
        each = zip(keys, trainer.trained(), _parts(trainer), strict=True)
        return [{**_named(key), **parts, **self.experiment.scores(model, key[1])} for key, model, parts in each]

    def checkpoint(self, keys: tuple[Key, ...]) -> Path:
        """Where the state of a pass is kept until its results are recorded."""
        return self.folder / f"{hashlib.sha256(repr(keys).encode()).hexdigest()[:16]}.checkpoint"


def _parts(trainer: bayes.Trainer) -> list[dict[str, Any]]:
    """Returns the parts of the bound in the last step, by network, in nats."""
    each = zip(*(part.tolist() for part in trainer.terms), strict=True)
    return [{"train_nll": round(nll, 2), "kl": [round(layer, 1) for layer in kl]} for nll, kl in each]
