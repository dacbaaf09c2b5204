"""Classification from few labels (Section 4.1, Fig. 2 and 5): priors and initialisations on paired splits."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from dwp_init import bayes
from training.engine.ledger import kept_runs
from training.engine.options import check_counts
from training.engine.records import Row, load_checkpoint, print_table, read_done, save_checkpoint, write_table
from training.engine.stage import ADDED, Context, Stage
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
    NATURAL_PRIOR,
    NORMAL,
    NORMAL_BY_LAYER,
    PRIORS,
    STANDARD_NORMAL,
    Experiment,
)
from training.experiments.few_labels_table import (
    ENSEMBLE_SCORES,
    SETTINGS,
    SHOWN,
    average_splits,
    plot_few_labels,
    spread_table,
)
from training.images.augment import Augment
from training.starts.priors import bundled_digests

BLOCK = 100  # steps between checkpoints
PERCENT = 100  # units of progress of a network
MEMBER = ("size", "split", "prior", "init")

LATER = (DWP_FIXED, DWP_SEMI_IMPLICIT, NATURAL_PRIOR, NORMAL_BY_LAYER)  # priors that are not of Fig. 2(a)

Member = tuple[int, int, str, str]  # of these
ChosenSettings = Mapping[tuple[int, str], Mapping[str, Any]]
"""Steps and temperature by number of labels and prior."""


@dataclass(frozen=True)
class Classify(Stage):
    """Trains a network, by default the paper's, on small sets by Algorithm 1, with every prior.

    The splits are stratified, the same for every prior and initialisation, and so are the networks' biases and
    classifiers. Test images are used once, after training; with ``hold_out``, training images are used instead.

    Args:
        needs: A stage of :class:`training.experiments.few_labels_choice.ChooseSettings`, whose steps and temperature of
            each prior and number of labels replace those given here; none by default.
        name: Base name of the CSV and PNG files; none are written if empty. The runs are kept in any case, under the
            name of the stage.
        data: Name of the data set.
        others: Name of the data set whose test images are the unknown ones of the OOD column; none if empty.
        filters: Numbers of channels of the network.
        vaes: Bundled VAEs, one for each kernel size: the prior ``dwp``, and the initialisation of that name.
        mixtures: Bundled mixtures, for the other learned priors: themselves, the Gaussian of the same kernels, and
            ``normal``, N(0, s²) with s the root mean square of the same kernels.
        priors: The priors to compare, of :data:`training.experiments.few_labels.PRIORS`.
        from_xavier: Those of them that also start from Xavier's initialisation.
        sizes: Sizes of the training sets.
        splits: Number of splits for each size; each has its own seed for the network too.
        first_split: Seed of the first.
        together: Splits that are trained in one pass: 1 on a CPU, where that is fastest, all on an accelerator.
        hold_out: Number of training images, the last ones, that replace the test images, for choices.
        test_images: Maximum number of test images, evenly spaced.
        other_images: Maximum number of those of ``others``; as many as test images by default.
        steps: Steps of Algorithm 1.
        batch_size: Images per step.
        lr: Initial learning rate of everything: posterior, biases, classifier, reverse models.
        scale_lr: That of the posterior's log variances; ``lr`` by default.
        scale: Standard deviation of the posterior at the start.
        newton_steps: Steps by which it is brought to the optimum of the objective before training; none by default.
        warm_up: Steps over which the weight of the divergences grows from 0.
        temperature: That weight: 1 is Bayes' rule, anything else a tempered objective.
        kernels: Kernels of a layer on which a step evaluates the divergence.
        samples: Networks of the ensemble.
        augmentation: Name of :data:`training.images.augment.AUGMENTATIONS`, by which training images are changed at
            random in each step; none by default. Each image counts once.
        copies: Copies of each image in a step, the mean of whose likelihoods is that of the image.
        network: Name of the network, see :func:`training.networks.registry.build`; the paper's for ``data`` by default.
        start: What all priors start from: ``dwp``, draws of ``vaes`` at their own scale, or ``natural``.
        estimator: How the layers draw their outputs in training, see :class:`dwp_init.bayes.BayesConv2d`.
    """

    keeps_runs: ClassVar[bool] = True

    name: str = "fig2a_mnist"
    data: str = "mnist"
    others: str = "notmnist"
    filters: tuple[int, ...] = (32, 128)
    vaes: tuple[str, ...] = ("notmnist-7x7-vae", "notmnist-5x5-vae")
    mixtures: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    priors: tuple[str, ...] = tuple(prior for prior in PRIORS if prior not in LATER)
    from_xavier: tuple[str, ...] = (DWP_PRIOR, STANDARD_NORMAL, NORMAL, DETERMINISTIC)
    sizes: tuple[int, ...] = (50, 100, 200, 500, 1000)
    splits: int = 10
    first_split: int = 0
    together: int = 1
    hold_out: int = 0
    test_images: int = 10_000
    other_images: int | None = None
    steps: int = 10_000
    batch_size: int = 50
    lr: float = 1e-3
    scale_lr: float | None = None
    scale: float = bayes.SCALE
    newton_steps: int = 0
    warm_up: int = 0
    temperature: float = 1.0
    kernels: int = 512
    samples: int = 10
    augmentation: str = ""
    copies: int = 1
    network: str = field(default="", metadata=ADDED)
    start: str = field(default=FROM_DWP, metadata=ADDED)
    estimator: bayes.Estimator = field(default="local", metadata=ADDED)

    def data_sets(self) -> tuple[str, ...]:
        return (self.data, self.others) if self.others else (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        natural = (NATURAL_PRIOR,) if NATURAL_PRIOR in (self.start, *self.priors) else ()
        return bundled_digests(*self.vaes, *self.mixtures, *natural)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.engine``; a run in progress resumes from its checkpoint."""
        self._check()
        keys = self.keys()
        job = partial(self.train_pass, self.experiment(context), chosen_settings(context, self.needs), folder)
        settings: dict[str, Any] = {"total": len(keys), "each": PERCENT, "unit": "%", "engine": context.engine}
        settings |= {"desc": self.name or folder.name, "members": tuple, "checkpoint": partial(checkpoint_file, folder)}
        with kept_runs(self, folder, context, MEMBER), Sweep(folder, MEMBER, **settings) as sweep:
            sweep(job, passes(keys, self.together))
        rows = [sweep.done[key] for key in keys]
        table = average_splits(rows, ENSEMBLE_SCORES if self.others else ENSEMBLE_SCORES[:-1])
        if self.name:
            record = folder / "record"
            runs = [{key: value for key, value in row.items() if key != "spreads"} for row in rows]
            write_table(record / f"{self.name}_runs.csv", runs)
            write_table(record / f"{self.name}_spreads.csv", spread_table(rows))
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
        if self.copies != 1 and not self.augmentation:
            raise ValueError(f"copies={self.copies} has no effect without augmentation; name one, or remove it")
        if len(set(self.sizes)) != len(self.sizes):
            raise ValueError(f"sizes must be different; got {self.sizes}")

    def keys(self) -> list[Member]:
        """Returns size, split, prior and initialisation of every network."""
        inits = {self.start: self.priors, FROM_XAVIER: [prior for prior in self.priors if prior in self.from_xavier]}
        return [
            (size, split, prior, init)
            for size in self.sizes
            for split in range(self.first_split, self.first_split + self.splits)
            for init, priors in inits.items()
            for prior in priors
        ]

    def experiment(self, context: Context) -> Experiment:
        """Reads what trains and tests the networks."""
        rates = (self.lr, self.scale_lr)
        schedule = bayes.Schedule(self.steps, self.batch_size, *rates, self.warm_up, self.temperature)
        images: dict[str, Any] = {"network": self.network, "others": self.others}
        images |= {"held_out": self.hold_out, "test_images": self.test_images}
        images |= {"other_images": self.other_images or self.test_images}
        settings: dict[str, Any] = {"scale": self.scale, "kernels": self.kernels, "samples": self.samples}
        settings["estimator"] = self.estimator
        augment = Augment(self.augmentation, self.copies) if self.augmentation else None
        settings |= {"newton_steps": self.newton_steps, "augment": augment}
        learned = (self.vaes, self.mixtures)
        return Experiment.read(context, self.data, self.filters, learned, schedule, **images, **settings)

    def train_pass(
        self,
        experiment: Experiment,
        chosen: ChosenSettings,
        folder: Path,
        members: tuple[Member, ...],
        progress: Progress,
    ) -> list[Row]:
        """Trains the networks of one pass, from its checkpoint if it has one; returns a row per split."""
        size, _, prior, init = members[0]
        own = nearest(chosen, size, prior) or {"steps": self.steps, "temperature": self.temperature}
        experiment = replace(experiment, schedule=replace(experiment.schedule, **own))
        trainer = experiment.trainer(size, [split for _, split, _, _ in members], prior, init)
        checkpoint = checkpoint_file(folder, members)
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            trainer.load_state_dict(state["trainer"])
            history = state["spreads"]
        else:
            history = [all_spreads(trainer)]
        shown = 0
        while trainer.step < own["steps"]:
            trainer.run(BLOCK, lambda _, *note: progress(0, *note))
            history.append(all_spreads(trainer))
            save_checkpoint(checkpoint, {"trainer": trainer.state_dict(), "spreads": history})
            before, shown = shown, PERCENT * trainer.step // own["steps"]
            progress((shown - before) * len(members))
        each = zip(members, trainer.trained(), last_terms(trainer), zip(*history, strict=True), strict=True)
        return [
            dict(zip(MEMBER, key, strict=True))
            | own
            | terms
            | experiment.scores(model, key[1])
            | {"spreads": [row for rows in spreads for row in rows]}
            for key, model, terms, spreads in each
        ]


def all_spreads(trainer: bayes.Trainer) -> list[list[Row]]:
    """Returns how wide the posteriors are by network and layer, with the number of the step."""
    return [
        [{"step": trainer.step, **spread._asdict()} for spread in bayes.spreads(objective.network)]
        for objective in trainer.trained()
    ]


def chosen_settings(context: Context, needs: Sequence[str]) -> ChosenSettings:
    """Reads the settings that earlier stages have chosen."""
    chosen = [row for need in needs for row in read_done(context.out / need)["chosen"]]
    return {(row["size"], row["prior"]): {name: row[name] for name in SETTINGS} for row in chosen}


def nearest(chosen: ChosenSettings, size: int, prior: str) -> dict[str, Any]:
    """Returns the settings of a prior at the number of labels of the smallest ratio; empty if none are chosen.

    Of two equal ratios the smaller number counts.

    Raises:
        ValueError: ChosenSettings are chosen for other priors alone.
    """
    sizes = sorted(labels for labels, name in chosen if name == prior)
    if chosen and not sizes:
        raise ValueError(f"no settings are chosen for {prior}; add it to the priors of the stages that are chosen from")
    ratios = {abs(math.log(labels / size)): labels for labels in reversed(sizes)}
    return dict(chosen[ratios[min(ratios)], prior]) if ratios else {}


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
