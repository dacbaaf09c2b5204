"""Classification from few labels (Section 4.1, Fig. 2 and 5): every prior and initialisation, on paired splits."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import dwp_init
from dwp_init import Gaussian, Prior
from training import bayes
from training.evaluate import bundled_digests, print_table, write_table
from training.figures import plot_few_labels
from training.networks import CIFARNet, MNISTNet
from training.stages import (
    Context,
    Stage,
    check_counts,
    load_checkpoint,
    read_done,
    read_metrics,
    record_metrics,
    save_checkpoint,
)
from training.workers import Progress, run_jobs

DWP, DWP_FIXED, MIXTURE, GAUSSIAN, LOG_UNIFORM = "dwp", "dwp, ψ fixed", "scale mixture", "Gaussian", "log-uniform"
AUTHORS_LOG_UNIFORM, STANDARD, SCALED, NONE = "log-uniform, α ≤ 1", "N(0, 1)", "N(0, s²)", "deterministic"
FROM_DWP, FROM_XAVIER = "dwp", "Xavier"
INITS = (FROM_DWP, FROM_XAVIER)
METRICS = ("accuracy", "accuracy_mean_weights", "accuracy_one_sample", "nll", "brier", "ece", "ood_auroc")
NETWORKS = {"mnist": MNISTNet, "cifar10": CIFARNet}
BLOCK = 100  # steps between checkpoints


@dataclass(frozen=True)
class Classify(Stage):
    """Trains the paper's network on small sets by Algorithm 1, with every prior and from every initialisation.

    The splits are stratified, the same for every prior and initialisation, and so are the networks' biases and
    classifiers. Test images are looked at once, after training; ``hold_out`` turns to training images instead.

    Args:
        name: Of the record; none is kept if empty.
        data: Name of the data set: ``mnist`` or ``cifar10``, with the paper's network for it.
        others: Name of the data set whose test images are the unknown ones of the OOD column; none if empty.
        filters: Channels of the convolutions.
        vaes: Bundled VAEs, one for each kernel size: the prior ``dwp``, and the initialisation of that name.
        mixtures: Bundled mixtures, for the other learned priors: themselves, the Gaussian of the same kernels, and
            N(0, s²), s the root mean square of the same kernels.
        priors: The priors to compare, of ``PRIORS``.
        from_xavier: Those of them that are started from Xavier's initialisation too. All are from draws of ``vaes`` at
            their own scale.
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
    priors: tuple[str, ...] = (DWP, MIXTURE, GAUSSIAN, AUTHORS_LOG_UNIFORM, STANDARD, SCALED, NONE)
    from_xavier: tuple[str, ...] = (DWP, STANDARD, SCALED, NONE)
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
        keys = [
            (size, split, prior, init)
            for size in self.sizes
            for split in range(self.first_split, self.first_split + self.splits)
            for init, priors in ((FROM_DWP, self.priors), (FROM_XAVIER, self.from_xavier))
            for prior in priors
        ]
        done = {(row["size"], row["split"], row["prior"], row["init"]): row for row in read_metrics(folder)}
        job = Job.load(self, folder, context)
        with tqdm(total=len(keys) * self.steps, unit="step", desc=self.name or folder.name) as bar:
            bar.update(len(done) * self.steps)

            def show(steps: int, note: str = "") -> None:
                bar.update(steps)
                if note:
                    bar.set_postfix_str(note)

            for rows in run_jobs(job.train, list(_passes(keys, done, self.together)), context.workers, show):
                for row in rows:
                    record_metrics(folder, **row)
                    done[row["size"], row["split"], row["prior"], row["init"]] = row
        for left in folder.glob("*.checkpoint"):
            left.unlink()
        return self._summarize(folder / "record", [done[key] for key in keys])

    def _check(self) -> None:
        check_counts(splits=self.splits, together=self.together, test_images=self.test_images, samples=self.samples)
        if self.data not in NETWORKS:
            raise ValueError(f"data must be one of {', '.join(NETWORKS)}; got {self.data!r}")
        known = {"priors": (self.priors, tuple(PRIORS)), "from_xavier": (self.from_xavier, self.priors)}
        for name, (given, there) in known.items():
            if set(given) - set(there) or len(set(given)) != len(given) or not self.priors:
                raise ValueError(f"{name} must be some of {', '.join(there)}, each once; got {given}")
        if not self.sizes or any(size < 10 or size % 10 for size in self.sizes):
            raise ValueError(f"sizes must be multiples of the 10 classes, for stratified splits; got {self.sizes}")

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
    priors: tuple[str, ...] = (DWP, AUTHORS_LOG_UNIFORM, STANDARD, GAUSSIAN)

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
            title = f"{', '.join(self.priors)}: {table[0]['splits']} splits"
            plot_few_labels(table, record / f"{self.name}.png", title)
        print_table([{key: row[key] for key in ("runs", *SHOWN) if key in row} for row in table])
        return {"table": table}


SHOWN = ("size", "prior", "init", "accuracy", "accuracy_sd", "over_dwp", "over_dwp_sd", "nll", "ece")


def summary(rows: list[dict[str, Any]], metrics: tuple[str, ...] = METRICS) -> list[dict[str, Any]]:
    """Averages runs over splits: a row per size, prior and initialisation, with each metric's mean and sd.

    ``over_dwp`` is how far the accuracy is above that of dwp from dwp on the same splits, in points.
    """
    found: dict[tuple[int, str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["size"], row["prior"], row["init"]), {})[row["split"]] = row
    return [_mean(key, runs, found.get((key[0], DWP, FROM_DWP), {}), metrics) for key, runs in found.items()]


def _mean(
    key: tuple[int, str, str],
    runs: dict[int, dict[str, Any]],
    reference: dict[int, dict[str, Any]],
    metrics: tuple[str, ...],
) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("size", "prior", "init"), key, strict=True))
    values = {name: torch.tensor([run[name] for run in runs.values()]) for name in metrics}
    if reference.keys() == runs.keys():
        values["over_dwp"] = values["accuracy"] - torch.tensor([reference[split]["accuracy"] for split in runs])
    for name, value in values.items():
        row[name] = round(value.mean().item(), 4)
        row[f"{name}_sd"] = round(value.std().item(), 4) if len(value) > 1 else ""
    return row | {"splits": len(runs)}


Key = tuple[int, int, str, str]


def _passes(keys: list[Key], done: dict[Key, Any], together: int) -> Iterator[tuple[Key, ...]]:
    """Groups what is to be trained into passes of one size, prior and initialisation.

    The groups do not depend on what is done, so that a pass that is resumed is the same pass.
    """
    groups: dict[tuple[Any, ...], list[Key]] = {}
    for size, split, prior, init in keys:
        groups.setdefault((size, prior, init), []).append((size, split, prior, init))
    passes = [tuple(group[i : i + together]) for group in groups.values() for i in range(0, len(group), together)]
    order = {key: place for place, key in enumerate(keys)}
    for members in sorted(passes, key=lambda members: order[members[0]]):
        if any(key not in done for key in members):
            yield members


@dataclass(frozen=True)
class LearnedPriors:
    """The bundled priors of a stage, and what follows from them."""

    vaes: list[Prior]
    mixtures: list[Prior]

    @classmethod
    def load(cls, vaes: tuple[str, ...], mixtures: tuple[str, ...]) -> "LearnedPriors":
        return cls(*([dwp_init.load_prior(name) for name in names] for names in (vaes, mixtures)))

    def gaussians(self) -> list[Gaussian]:
        """The Gaussian of maximum likelihood of the kernels that each mixture was fitted to: its whitening."""
        found = []
        for mixture in self.mixtures:
            found.append(Gaussian(mixture.kernel_shape))
            found[-1].whitening.load_state_dict(mixture.whitening.state_dict())
        return found

    def rms(self) -> list[float]:
        """The root mean square of the same kernels."""
        parts = [gaussian.whitening for gaussian in self.gaussians()]
        return [
            (part.loc.square().sum() + part.scale.square().sum()).div(len(part.loc)).sqrt().item() for part in parts
        ]


PRIORS: dict[str, Callable[[LearnedPriors], list[bayes.KL]]] = {
    DWP: lambda learned: [bayes.kl_from(prior) for prior in learned.vaes],
    DWP_FIXED: lambda learned: [bayes.kl_from(prior, train_reverse=False) for prior in learned.vaes],
    MIXTURE: lambda learned: [bayes.kl_from(prior) for prior in learned.mixtures],
    GAUSSIAN: lambda learned: [bayes.kl_from(prior) for prior in learned.gaussians()],
    LOG_UNIFORM: lambda learned: [bayes.LogUniformKL()],
    AUTHORS_LOG_UNIFORM: lambda learned: [bayes.TruncatedLogUniformKL()],
    STANDARD: lambda learned: [bayes.NormalKL()],
    SCALED: lambda learned: [
        bayes.NormalKL(rms, kernel_shape=prior.kernel_shape)
        for rms, prior in zip(learned.rms(), learned.mixtures, strict=True)
    ],
    NONE: lambda learned: [],
}


@dataclass(frozen=True)
class Job:
    """What the processes of a stage need to train its networks and to test them."""

    stage: Classify
    folder: Path
    train_data: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    others: Tensor
    learned: LearnedPriors

    @classmethod
    def load(cls, stage: Classify, folder: Path, context: Context) -> "Job":
        """Loads the data and the priors."""
        train, test = (context.images(stage.data, split).to(context.device) for split in ("train", "test"))
        if stage.hold_out:
            if not 0 < stage.hold_out < len(train[0]):
                raise ValueError(f"hold_out must leave some of {len(train[0])} training images; got {stage.hold_out}")
            test = tuple(part[-stage.hold_out :] for part in train)
            train = tuple(part[: -stage.hold_out] for part in train)
        test = tuple(part[:: -(-len(part) // stage.test_images)] for part in test)
        others = context.images(stage.others, "test").to(context.device)[0] if stage.others else test[0][:0]
        others = others[:: max(-(-len(others) // stage.test_images), 1)]
        return cls(stage, folder, train, test, others, LearnedPriors.load(stage.vaes, stage.mixtures))

    def train(self, keys: tuple[Key, ...], progress: Progress) -> list[dict[str, Any]]:
        """Trains one pass, from its checkpoint if it has one; returns a row per split."""
        size, _, prior, init = keys[0]
        splits = [split for _, split, _, _ in keys]
        trainer = self.trainer(size, splits, prior, init)
        name = hashlib.sha256(repr(keys).encode()).hexdigest()[:16]
        checkpoint = self.folder / f"{name}.checkpoint"
        if checkpoint.exists():
            trainer.load_state_dict(load_checkpoint(checkpoint))
            progress(trainer.step * len(keys))
        while trainer.step < self.stage.steps:
            trainer.run(BLOCK, lambda steps, note="": progress(steps * len(keys), note))
            save_checkpoint(checkpoint, trainer.state_dict())
        found = [
            {"size": size, "split": split, "prior": prior, "init": init, **self._scores(objective, split), **parts}
            for split, objective, parts in zip(splits, trainer.trained(), _parts(trainer), strict=True)
        ]
        checkpoint.unlink(missing_ok=True)
        return found

    def trainer(self, size: int, splits: list[int], prior: str, init: str) -> bayes.Trainer:
        """Returns what trains one pass, from the start."""
        objectives = [self.objective(split, prior, init) for split in splits]
        rows = [stratified(self.train_data[1], size, split) for split in splits]
        images, labels = (torch.stack([part[picked] for picked in rows]) for part in self.train_data)
        stage = self.stage
        weight = {"warm_up": stage.warm_up, "temperature": stage.temperature}
        schedule = bayes.Schedule(stage.steps, stage.batch_size, stage.lr, **weight)
        return bayes.Trainer(objectives, images, labels, schedule, seed=splits[0])

    def objective(self, split: int, prior: str, init: str) -> bayes.Objective:
        """Returns an untrained network with a posterior, and its divergences from a prior."""
        stage = self.stage
        torch.manual_seed(split)
        network = NETWORKS[stage.data](stage.filters)
        if init == FROM_DWP:
            dwp_init.apply_(network, self.learned.vaes, scale="prior", seed=split)
        else:
            generator = torch.Generator().manual_seed(1000 + split)
            for layer in network.features:
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_normal_(layer.weight, generator=generator)
        if prior == AUTHORS_LOG_UNIFORM:
            bayes.bayesianize_(network, kind=bayes.RelativeBayesConv2d)
        elif prior != NONE:
            bayes.bayesianize_(network, scale=stage.scale)
        terms = PRIORS[prior](self.learned)
        return bayes.Objective(network.to(self.train_data[0].device), terms, stage.kernels)

    def _scores(self, objective: bayes.Objective, split: int) -> dict[str, float]:
        network, (images, labels) = objective.network, self.test
        samples = self.stage.samples if objective.layers else 1
        generator = torch.Generator(images.device).manual_seed(split)
        together = torch.cat([images, self.others])
        drawn = bayes.predict_samples(network, together, samples, generator) if objective.layers else None
        mean = bayes.predict(network, together)
        drawn = mean[None] if drawn is None else drawn
        ensemble, known = drawn.mean(0), len(images)
        one = [bayes.score(part[:known], labels)["accuracy"] for part in drawn]
        found = {
            **bayes.score(ensemble[:known], labels),
            "accuracy_mean_weights": bayes.score(mean[:known], labels)["accuracy"],
            "accuracy_one_sample": sum(one) / len(one),
        }
        if len(self.others):
            found["ood_auroc"] = bayes.ood_auroc(ensemble[:known], ensemble[known:])
        return {name: round(value, 4) for name, value in found.items()}


def _parts(trainer: bayes.Trainer) -> list[dict[str, Any]]:
    """Returns the parts of the bound in the last step, by network, in nats."""
    nll, kl = trainer.terms
    return [
        {"train_nll": round(a, 2), "kl": [round(x, 1) for x in b]}
        for a, b in zip(nll.tolist(), kl.tolist(), strict=True)
    ]


def stratified(labels: Tensor, size: int, seed: int) -> Tensor:
    """Returns ``size`` random places in labels ``(n,)``, as many of each class.

    Raises:
        ValueError: ``size`` is no multiple of the number of classes, or a class has too few.
    """
    classes = labels.unique()
    each = size // len(classes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    picked = [order[labels[order] == label][:each] for label in classes]
    if size % len(classes) or any(len(part) < each for part in picked):
        raise ValueError(f"{size} images of {len(classes)} classes, as many of each, cannot be had from {len(labels)}")
    return torch.cat(picked)
