"""The experiment of Section 4.1: the paper's network, small stratified training sets, every prior, Algorithm 1."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import dwp_init
from dwp_init import Gaussian, GaussianMixture, Prior, bayes
from training.engine.options import check_counts
from training.engine.stage import Context
from training.experiments.base import read_images
from training.images.augment import Augment
from training.images.split import Labelled, stratified, thin
from training.networks.registry import build
from training.networks.scores import ood_auroc, prediction_scores
from training.starts.base import initialize_
from training.starts.controls import XAVIER
from training.starts.priors import DWP_OWN

DWP_PRIOR, DWP_FIXED, MIXTURE, GAUSSIAN_PRIOR = "dwp", "dwp-fixed", "mixture", "gaussian"
DWP_SEMI_IMPLICIT = "dwp-semi-implicit"
LOG_UNIFORM, LOG_UNIFORM_AUTHORS = "log-uniform", "log-uniform-authors"
STANDARD_NORMAL, NORMAL, DETERMINISTIC = "standard-normal", "normal", "deterministic"
FROM_DWP, FROM_XAVIER = "dwp", "Xavier"
STARTED_BY = {FROM_DWP: DWP_OWN, FROM_XAVIER: XAVIER}  # the start of each initialisation of the recorded tables
PAPER_NETWORKS = {"mnist": "mnist", "cifar10": "cifar"}  # by data set
CLASSES = 10
LATENT_DRAWS = 10  # K of the semi-implicit bound
TESTED_AT_ONCE = 100  # images


@dataclass(frozen=True)
class LearnedPriors:
    """The bundled priors of an experiment, one for each kernel size, and what follows from them."""

    vaes: list[Prior]
    mixtures: list[GaussianMixture]

    @classmethod
    def load(cls, vaes: tuple[str, ...], mixtures: tuple[str, ...]) -> "LearnedPriors":
        """Loads them by name; raises ``ValueError`` if one of the mixtures is of another family."""
        loaded = {name: dwp_init.load_prior(name) for name in mixtures}
        for name, prior in loaded.items():
            if not isinstance(prior, GaussianMixture):
                raise ValueError(f"mixtures must be priors of the family mixture; {name} is a {prior.family}")
        return cls([dwp_init.load_prior(name) for name in vaes], cast(list[GaussianMixture], list(loaded.values())))

    def gaussians(self) -> list[Gaussian]:
        """The Gaussian of maximum likelihood of the kernels that each mixture was fitted to: its whitening."""
        found = []
        for mixture in self.mixtures:
            found.append(Gaussian(mixture.kernel_shape))
            found[-1].whitening.load_state_dict(mixture.whitening.state_dict())
        return found

    def normals(self) -> list[bayes.NormalKL]:
        """KL from N(0, s²) for each mixture, s the root mean square of the same kernels."""
        found = []
        for mixture in self.mixtures:
            part = mixture.whitening
            rms = (part.loc.square().mean() + part.scale.square().mean()).sqrt().item()
            found.append(bayes.NormalKL(rms, kernel_shape=mixture.kernel_shape))
        return found


class Rival(NamedTuple):
    """A prior of the comparison: its colour in figures, and its divergences from the learned priors."""

    colour: str
    divergences: Callable[[LearnedPriors], list[bayes.KL]]


PRIORS: dict[str, Rival] = {
    DWP_PRIOR: Rival("#c0392b", lambda learned: [bayes.kl_from(prior) for prior in learned.vaes]),
    DWP_FIXED: Rival("#e6b0aa", lambda learned: [bayes.kl_from(prior, train_reverse=False) for prior in learned.vaes]),
    DWP_SEMI_IMPLICIT: Rival(
        "#7b241c", lambda learned: [bayes.kl_from(prior, draws=LATENT_DRAWS) for prior in learned.vaes]
    ),
    MIXTURE: Rival("#8e44ad", lambda learned: [bayes.kl_from(prior) for prior in learned.mixtures]),
    GAUSSIAN_PRIOR: Rival("#d68910", lambda learned: [bayes.kl_from(prior) for prior in learned.gaussians()]),
    LOG_UNIFORM: Rival("#1e8449", lambda learned: [bayes.LogUniformKL()]),
    LOG_UNIFORM_AUTHORS: Rival("#52be80", lambda learned: [bayes.TruncatedLogUniformKL()]),
    STANDARD_NORMAL: Rival("#2471a3", lambda learned: [bayes.NormalKL()]),
    NORMAL: Rival("#5dade2", lambda learned: [*learned.normals()]),
    DETERMINISTIC: Rival("#17202a", lambda learned: []),
}


@dataclass(frozen=True)
class Experiment:
    """What it takes to train and to test one network.

    The splits, and the biases and classifiers of the networks of one split, are the same for every prior and
    initialisation.

    Args:
        network: ``mnist`` or ``cifar10``, for the paper's network of that data set.
        filters: Channels of its convolutions.
        train: Images ``(n, c, h, w)`` and labels ``(n,)`` that splits are drawn from.
        test: The same, to test on.
        others: Images of something else, for the detection of unknown ones; may be empty.
        learned: The learned priors.
        schedule: Schedule of Algorithm 1.
        scale: Standard deviation of an additive posterior at the start.
        kernels: Kernels of a layer on which a step evaluates the divergence.
        samples: Networks of the ensemble.
        newton_steps: Steps by which the posterior's scales are brought to the optimum of the objective before training.
        augment: Makes random copies of the images of each step; none by default.
    """

    network: str
    filters: tuple[int, ...]
    train: Labelled
    test: Labelled
    others: Tensor
    learned: LearnedPriors
    schedule: bayes.Schedule
    scale: float
    kernels: int
    samples: int
    newton_steps: int = 0
    augment: Augment | None = None

    @classmethod
    def read(
        cls,
        context: Context,
        data: str,
        filters: tuple[int, ...],
        learned: tuple[tuple[str, ...], tuple[str, ...]],
        schedule: bayes.Schedule,
        *,
        others: str = "",
        held_out: int = 0,
        test_images: int = 10_000,
        other_images: int = 10_000,
        **settings: Any,
    ) -> "Experiment":
        """Reads the images and the learned priors of an experiment.

        Args:
            context: Where it runs.
            data: Name of the data set, ``mnist`` or ``cifar10``.
            filters: Channels of the convolutions.
            learned: Names of the VAEs and of the mixtures.
            schedule: Schedule of Algorithm 1.
            others: Name of the data set whose test images are the unknown ones; none if empty.
            held_out: Number of training images, the last ones, that replace the test images.
            test_images: Maximum number of images to test on, evenly spaced.
            other_images: Maximum number of unknown ones.
            **settings: ``scale``, ``kernels``, ``samples``, ``newton_steps`` and ``augment``.
        """
        untrained(data, filters)  # refuses settings before anything is read
        check_counts(test_images=test_images, other_images=other_images)
        train, test = read_images(context, data, held_out, test_images)
        unknown = context.images(others, "test").to(context.device)[0] if others else test[0][:0]
        if unknown.shape[1:] != test[0].shape[1:]:
            shapes = f"{tuple(unknown.shape[1:])}, not {tuple(test[0].shape[1:])}"
            raise ValueError(f"images of others={others!r} are {shapes} as those of {data!r}; choose another")
        parts = (train, test, thin(unknown, other_images), LearnedPriors.load(*learned))
        return cls(data, filters, *parts, schedule, **settings)

    def trainer(self, size: int, splits: Sequence[int], prior: str, init: str) -> bayes.Trainer:
        """Returns what trains a network for each split in one pass, from the start; its seed is the first split's."""
        objectives = [self.objective(split, prior, init) for split in splits]
        rows = [stratified(self.train[1], size, split) for split in splits]
        images, labels = (torch.stack([part[picked] for picked in rows]) for part in self.train)
        if self.newton_steps:
            settings: dict[str, Any] = {"temperature": self.schedule.temperature, "steps": self.newton_steps}
            for split, objective, *data in zip(splits, objectives, images, labels, strict=True):
                torch.manual_seed(split)
                bayes.start_at_optimal_scales_(objective, *data, **settings)
        return bayes.Trainer(objectives, images, labels, self.schedule, splits[0], self.augment)

    def objective(self, split: int, prior: str, init: str) -> bayes.Objective:
        """Returns an untrained network with a posterior, and its divergences from a prior of ``PRIORS``."""
        torch.manual_seed(split)
        network = untrained(self.network, self.filters)
        initialize_(network, STARTED_BY[init], split, priors=self.learned.vaes, strict=True)
        if prior == LOG_UNIFORM_AUTHORS:
            bayes.bayesianize_(network, kind=bayes.RelativeBayesConv2d)
        elif prior != DETERMINISTIC:
            bayes.bayesianize_(network, scale=self.scale)
        divergences = PRIORS[prior].divergences(self.learned)
        return bayes.Objective(
            network.to(self.train[0].device), divergences, self.kernels, augmented=self.augment is not None
        )

    def scores(self, objective: bayes.Objective, split: int) -> dict[str, float]:
        """Tests a trained network: its ensemble, its mean weights, single samples, and unknown images."""
        (images, labels), known = self.test, len(self.test[0])
        network = copy.deepcopy(objective.network).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        both = torch.cat([images, self.others]).to(memory_format=torch.channels_last)
        mean = drawn = bayes.predict(network, both, TESTED_AT_ONCE)[None]
        if objective.layers:
            generator = torch.Generator(images.device).manual_seed(split)
            drawn = bayes.predict_samples(network, both, self.samples, generator, TESTED_AT_ONCE)
        ensemble = drawn.mean(0)
        one = [prediction_scores(part[:known], labels)["accuracy"] for part in drawn]
        found = {
            **prediction_scores(ensemble[:known], labels),
            "accuracy_mean_weights": prediction_scores(mean[0, :known], labels)["accuracy"],
            "accuracy_one_sample": sum(one) / len(one),
        }
        if len(self.others):
            found["ood_auroc"] = ood_auroc(ensemble[:known], ensemble[known:])
        return {name: round(value, 4) for name, value in found.items()}


def untrained(data: str, filters: tuple[int, ...]) -> nn.Module:
    """Returns the paper's network for a data set.

    Raises:
        ValueError: The paper has none for it, or ``filters`` are not as many as its convolutions.
    """
    if data not in PAPER_NETWORKS:
        raise ValueError(f"data must be one of {', '.join(PAPER_NETWORKS)}; got {data!r}")
    shape = (1, 28, 28) if data == "mnist" else (3, 32, 32)
    return build(PAPER_NETWORKS[data], filters, CLASSES, shape)
