"""Classification from few labels (Section 4.1, Fig. 2 and 5): priors and initialisations on paired splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from training import bayes
from training.engine.options import check_counts
from training.engine.records import Row, load_checkpoint, print_table, read_done, save_checkpoint, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.few_labels import (
    CLASSES,
    DETERMINISTIC,
    DWP_FIXED,
    DWP_PRIOR,
    DWP_SEMI_IMPLICIT,
    FROM_DWP,
    FROM_XAVIER,
    GAUSSIAN_PRIOR,
    LOG_UNIFORM_AUTHORS,
    NORMAL,
    PRIORS,
    STANDARD_NORMAL,
    Experiment,
)
from training.experiments.paired import mean_sd
from training.figures.style import log_ticks, save_figure
from training.starts.priors import bundled_digests

ENSEMBLE_SCORES = ("accuracy", "accuracy_mean_weights", "accuracy_one_sample", "nll", "brier", "ece", "ood_auroc")
SHOWN = ("size", "prior", "init", "accuracy", "accuracy_sd", "over_dwp", "over_dwp_sd", "nll", "ece")
BLOCK = 100  # steps between checkpoints
KEY = ("size", "split", "prior", "init")

Member = tuple[int, int, str, str]  # of these


@dataclass(frozen=True)
class Classify(Stage):
    """Trains the paper's network on small sets by Algorithm 1, with every prior and from both initialisations.

    The splits are stratified, the same for every prior and initialisation, and so are the networks' biases and
    classifiers. Test images are used once, after training; with ``hold_out``, training images are used instead.

    Args:
        name: Base name of the CSV and PNG files; none are written if empty.
        data: Name of the data set: ``mnist`` or ``cifar10``, with the paper's network for it.
        others: Name of the data set whose test images are the unknown ones of the OOD column; none if empty.
        filters: Channels of the convolutions.
        vaes: Bundled VAEs, one for each kernel size: the prior ``dwp``, and the initialisation of that name.
        mixtures: Bundled mixtures, for the other learned priors: themselves, the Gaussian of the same kernels, and
            ``normal``, N(0, s²) with s the root mean square of the same kernels.
        priors: The priors to compare, of :data:`training.experiments.few_labels.PRIORS`, each from draws of ``vaes``
            at their own scale.
        from_xavier: Those of them that also start from Xavier's initialisation.
        sizes: Sizes of the training sets.
        splits: Number of splits for each size; each has its own seed for the network too.
        first_split: Seed of the first.
        together: Splits that are trained in one pass: 1 on a CPU, where that is fastest, all on an accelerator.
        hold_out: Number of training images, the last ones, that replace the test images, for choices.
        test_images: Maximum number of test images, evenly spaced, and of those of ``others``.
        steps: Steps of Algorithm 1, for every size.
        batch_size: Images per step.
        lr: Initial learning rate of everything: posterior, biases, classifier, reverse models.
        scale: Standard deviation of the posterior at the start.
        warm_up: Steps over which the weight of the divergences grows from 0.
        temperature: That weight, 1 in Bayes' rule.
        kernels: Kernels of a layer on which a step evaluates the divergence.
        samples: Networks of the ensemble.
    """

    name: str = "fig2a_mnist"
    data: str = "mnist"
    others: str = "notmnist"
    filters: tuple[int, ...] = (32, 128)
    vaes: tuple[str, ...] = ("notmnist-7x7-vae", "notmnist-5x5-vae")
    mixtures: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    priors: tuple[str, ...] = tuple(prior for prior in PRIORS if prior not in (DWP_FIXED, DWP_SEMI_IMPLICIT))
    from_xavier: tuple[str, ...] = (DWP_PRIOR, STANDARD_NORMAL, NORMAL, DETERMINISTIC)
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
        """Trains what is missing, on ``context.engine``; a run in progress resumes from its checkpoint."""
        self._check()
        keys = self.keys()
        job = partial(self.train_pass, self.experiment(context), folder)
        settings: dict[str, Any] = {"total": len(keys), "each": self.steps, "engine": context.engine}
        settings |= {"desc": self.name or folder.name, "members": tuple, "checkpoint": partial(checkpoint_file, folder)}
        with Sweep(folder, KEY, **settings) as sweep:
            sweep(job, passes(keys, self.together))
        rows = [sweep.done[key] for key in keys]
        table = average_splits(rows, ENSEMBLE_SCORES if self.others else ENSEMBLE_SCORES[:-1])
        if self.name:
            record = folder / "record"
            write_table(record / f"{self.name}_runs.csv", rows)
            write_table(record / f"{self.name}.csv", table)
            plot_few_labels(table, record / f"{self.name}.png", f"{self.data}, {self.splits} splits")
        print_table([{key: row[key] for key in SHOWN} for row in table])
        return {"table": table}

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

    def keys(self) -> list[Member]:
        """Returns size, split, prior and initialisation of every network."""
        inits = {FROM_DWP: self.priors, FROM_XAVIER: [prior for prior in self.priors if prior in self.from_xavier]}
        return [
            (size, split, prior, init)
            for size in self.sizes
            for split in range(self.first_split, self.first_split + self.splits)
            for init, priors in inits.items()
            for prior in priors
        ]

    def experiment(self, context: Context) -> Experiment:
        """Reads what trains and tests the networks."""
        schedule = bayes.Schedule(
            self.steps, self.batch_size, self.lr, warm_up=self.warm_up, temperature=self.temperature
        )
        images: dict[str, Any] = {"others": self.others, "held_out": self.hold_out, "test_images": self.test_images}
        settings: dict[str, Any] = {"scale": self.scale, "kernels": self.kernels, "samples": self.samples}
        learned = (self.vaes, self.mixtures)
        return Experiment.read(context, self.data, self.filters, learned, schedule, **images, **settings)

    def train_pass(
        self, experiment: Experiment, folder: Path, members: tuple[Member, ...], progress: Progress
    ) -> list[Row]:
        """Trains the networks of one pass, from its checkpoint if it has one; returns a row per split."""
        size, _, prior, init = members[0]
        trainer = experiment.trainer(size, [split for _, split, _, _ in members], prior, init)
        checkpoint = checkpoint_file(folder, members)
        if checkpoint.exists():
            trainer.load_state_dict(load_checkpoint(checkpoint))
            progress(trainer.step * len(members))
        while trainer.step < experiment.schedule.steps:
            trainer.run(BLOCK, lambda steps, *note: progress(steps * len(members), *note))
            save_checkpoint(checkpoint, trainer.state_dict())
        each = zip(members, trainer.trained(), last_terms(trainer), strict=True)
        return [
            dict(zip(KEY, key, strict=True)) | terms | experiment.scores(model, key[1]) for key, model, terms in each
        ]


@dataclass(frozen=True)
class Selection(Stage):
    """Draws the results of some priors from a :class:`Classify` stage, or puts several such tables side by side.

    Args:
        needs: The stages with the runs; a figure is drawn where there is one.
        name: Base name of the CSV and PNG files.
        priors: The priors.
    """

    name: str = "fig5_gaussian"
    priors: tuple[str, ...] = (DWP_PRIOR, LOG_UNIFORM_AUTHORS, STANDARD_NORMAL, GAUSSIAN_PRIOR)

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


def average_splits(rows: Sequence[Row], scores: Sequence[str] = ENSEMBLE_SCORES) -> list[Row]:
    """Averages runs over splits: a row per size, prior and initialisation, with mean and sd of each score.

    ``over_dwp`` is how far the accuracy is above that of dwp from dwp on the same splits, in points; empty where that
    was not run.
    """
    found: dict[tuple[int, str, str], dict[int, Row]] = {}
    for row in rows:
        found.setdefault((row["size"], row["prior"], row["init"]), {})[row["split"]] = row
    table = []
    for (size, prior, init), runs in found.items():
        row = {"size": size, "prior": prior, "init": init, "over_dwp": "", "over_dwp_sd": ""}
        reference = found.get((size, DWP_PRIOR, FROM_DWP), {})
        values = {name: torch.tensor([run[name] for run in runs.values()]) for name in scores}
        if reference.keys() == runs.keys():
            row |= mean_sd(
                "over_dwp", values["accuracy"] - torch.tensor([reference[split]["accuracy"] for split in runs]), 4
            )
        for name, value in values.items():
            row |= mean_sd(name, value, 4)
        table.append(row | {"splits": len(runs)})
    return table


def passes(keys: Sequence[Member], together: int) -> list[tuple[Member, ...]]:
    """Groups what is to be trained into passes of one size, prior and initialisation, in the order of the keys.

    The groups do not depend on what is finished, so that a pass that is resumed is the same pass.
    """
    groups: dict[tuple[int, str, str], list[Member]] = {}
    for key in keys:
        size, _, prior, init = key
        groups.setdefault((size, prior, init), []).append(key)
    found = [tuple(group[i : i + together]) for group in groups.values() for i in range(0, len(group), together)]
    return sorted(found, key=lambda members: keys.index(members[0]))


def checkpoint_file(folder: Path, members: tuple[Member, ...]) -> Path:
    """Returns the path of the state of a pass, which is kept until its rows are recorded."""
    return folder / f"{hashlib.sha256(repr(members).encode()).hexdigest()[:16]}.checkpoint"


def last_terms(trainer: bayes.Trainer) -> list[Row]:
    """Returns the terms of the bound in the last step, by network, in nats."""
    if trainer.terms is None:
        return [{} for _ in trainer.trained()]
    nll, kl = (term.tolist() for term in trainer.terms)
    return [{"train_nll": round(a, 2), "kl": [round(layer, 1) for layer in b]} for a, b in zip(nll, kl, strict=True)]


def plot_few_labels(table: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws accuracy over the number of labels, as in Fig. 2: a line per prior, a panel per initialisation.

    Args:
        table: Rows with ``size``, ``prior``, ``init``, ``accuracy`` and ``accuracy_sd`` in %.
        path: Path of the PNG.
        title: Title of the figure.
    """
    inits, priors, sizes = (dict.fromkeys(row[key] for row in table) for key in ("init", "prior", "size"))
    figure = Figure(figsize=(5.4 * len(inits), 4.4))
    panels = figure.subplots(1, len(inits), sharey=True, squeeze=False).flatten()
    for axes, init in zip(panels, inits, strict=True):
        for prior in priors:
            rows = [row for row in table if (row["prior"], row["init"]) == (prior, init)]
            style: dict[str, Any] = {"color": PRIORS[prior].colour if prior in PRIORS else None}
            style |= {"linestyle": "--" if prior == DETERMINISTIC else "-", "marker": "o", "markersize": 3}
            error = [row["accuracy_sd"] or 0.0 for row in rows]
            if rows:
                mean = [row["accuracy"] for row in rows]
                axes.errorbar([row["size"] for row in rows], mean, error, capsize=2, **style, label=prior)
        log_ticks(axes, sorted(sizes))
        axes.grid(alpha=0.3)
        axes.set(xlabel="labelled images", title=f"from {init}")
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)
