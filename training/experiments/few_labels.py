"""The experiment of Section 4.1: a network, small stratified training sets, every prior, Algorithm 1."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import dwp_init
from dwp_init import Gaussian, GaussianMixture, Prior, bayes
from training.engine.options import check_counts
from training.engine.stage import Context
from training.experiments.base import network_for, read_images
from training.images.augment import Augment
from training.images.split import Labelled, stratified, thin
from training.networks.scores import ood_auroc, prediction_scores
from training.starts.base import initialize_
from training.starts.controls import XAVIER
from training.starts.natural import DENSE_DRAWN
from training.starts.priors import DWP_OWN

DWP_PRIOR, DWP_FIXED, MIXTURE, GAUSSIAN_PRIOR = "dwp", "dwp-fixed", "mixture", "gaussian"
DWP_SEMI_IMPLICIT = "dwp-semi-implicit"
LOG_UNIFORM, LOG_UNIFORM_AUTHORS = "log-uniform", "log-uniform-authors"
STANDARD_NORMAL, NORMAL, DETERMINISTIC = "standard-normal", "normal", "deterministic"
NATURAL_PRIOR, NORMAL_BY_LAYER = "natural", "normal-by-layer"
FROM_DWP, FROM_XAVIER, FROM_NATURAL = "dwp", "Xavier", "natural"
STARTED_BY = {FROM_DWP: DWP_OWN, FROM_XAVIER: XAVIER, FROM_NATURAL: DENSE_DRAWN}  # by name in the recorded tables
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


Divergences = list[bayes.KL] | Mapping[str, bayes.KL]


class Rival(NamedTuple):
    """A prior of the comparison: its colour in figures, and its divergences.

    They come from the learned priors, or for priors by depth and scale of a layer from the network at its start.
    """

    colour: str
    divergences: Callable[[LearnedPriors, nn.Module], Divergences]


def _natural(learned: LearnedPriors, network: nn.Module) -> Divergences:
    return bayes.layer_priors(network, NATURAL_PRIOR, without="normal").terms()


def _normal_by_layer(learned: LearnedPriors, network: nn.Module) -> Divergences:
    return bayes.bayesianize_(copy.deepcopy(network)).terms()


PRIORS: dict[str, Rival] = {
    DWP_PRIOR: Rival("#c0392b", lambda learned, _: [bayes.kl_from(prior) for prior in learned.vaes]),
    DWP_FIXED: Rival(
        "#e6b0aa", lambda learned, _: [bayes.kl_from(prior, train_reverse=False) for prior in learned.vaes]
    ),
    DWP_SEMI_IMPLICIT: Rival(
        "#7b241c", lambda learned, _: [bayes.kl_from(prior, draws=LATENT_DRAWS) for prior in learned.vaes]
    ),
    MIXTURE: Rival("#8e44ad", lambda learned, _: [bayes.kl_from(prior) for prior in learned.mixtures]),
    GAUSSIAN_PRIOR: Rival("#d68910", lambda learned, _: [bayes.kl_from(prior) for prior in learned.gaussians()]),
    LOG_UNIFORM: Rival("#1e8449", lambda learned, _: [bayes.LogUniformKL()]),
    LOG_UNIFORM_AUTHORS: Rival("#52be80", lambda learned, _: [bayes.TruncatedLogUniformKL()]),
    STANDARD_NORMAL: Rival("#2471a3", lambda learned, _: [bayes.NormalKL()]),
    NORMAL: Rival("#5dade2", lambda learned, _: [*learned.normals()]),
    DETERMINISTIC: Rival("#17202a", lambda learned, _: []),
    NATURAL_PRIOR: Rival("#117a65", _natural),
    NORMAL_BY_LAYER: Rival("#7f8c8d", _normal_by_layer),
}


@dataclass(frozen=True)
class Experiment:
    """What it takes to train and to test one network.

    The splits, and the biases and classifiers of the networks of one split, are the same for every prior and
    initialisation.

    Args:
        network: Name of the network, see :func:`training.networks.registry.build`.
        filters: Its numbers of channels.
        train: Images ``(n, c, h, w)`` and labels ``(n,)`` that splits are drawn from.
        test: The same, to test on.
        others: Images of something else, for the detection of unknown ones; may be empty.
        learned: The learned priors.
        schedule: Schedule of Algorithm 1.
        scale: Standard deviation of an additive posterior at the start.
        kernels: Kernels of a layer on which a step evaluates the divergence.
        samples: Networks of the ensemble.
        estimator: How the layers draw their outputs in training.
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
    estimator: bayes.Estimator
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
        network: str = "",
        others: str = "",
        held_out: int = 0,
        test_images: int = 10_000,
        other_images: int = 10_000,
        **settings: Any,
    ) -> "Experiment":
        """Reads the images and the learned priors of an experiment.

        Args:
            context: Where it runs.
            data: Name of the data set.
            filters: Numbers of channels of the network.
            learned: Names of the VAEs and of the mixtures.
            schedule: Schedule of Algorithm 1.
            network: Name of the network; the paper's for the data set by default, which must have one.
            others: Name of the data set whose test images are the unknown ones; none if empty.
            held_out: Number of training images, the last ones, that replace the test images.
            test_images: Maximum number of images to test on, evenly spaced.
            other_images: Maximum number of unknown ones.
            **settings: ``scale``, ``kernels``, ``samples``, ``estimator``, ``newton_steps`` and ``augment``.
        """
        name = network or papers_network(data)
        check_counts(test_images=test_images, other_images=other_images)
        train, test = read_images(context, data, held_out, test_images)
        unknown = context.images(others, "test").to(context.device)[0] if others else test[0][:0]
        if unknown.shape[1:] != test[0].shape[1:]:
            shapes = f"{tuple(unknown.shape[1:])}, not {tuple(test[0].shape[1:])}"
            raise ValueError(f"images of others={others!r} are {shapes} as those of {data!r}; choose another")
        parts = (train, test, thin(unknown, other_images), LearnedPriors.load(*learned))
        network_for(train, name, filters)  # refuses a network before anything is trained
        return cls(name, filters, *parts, schedule, **settings)

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
        network = network_for(self.train, self.network, self.filters)
        priors = (NATURAL_PRIOR,) if init == FROM_NATURAL else self.learned.vaes
        initialize_(network, STARTED_BY[init], split, priors=priors, strict=init != FROM_NATURAL)
        divergences = PRIORS[prior].divergences(self.learned, network)
        if prior == LOG_UNIFORM_AUTHORS:
            bayes.bayesianize_(network, kind=bayes.RelativeBayesConv2d, estimator=self.estimator)
        elif prior != DETERMINISTIC:
            bayes.bayesianize_(network, scale=self.scale, estimator=self.estimator)
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


def papers_network(data: str) -> str:
    """Returns the name of the paper's network for a data set; raises ``ValueError`` if it has none."""
    if data not in PAPER_NETWORKS:
        raise ValueError(
            f"the paper has networks for {', '.join(PAPER_NETWORKS)}, and none for {data!r}: name one in network="
        )
    return PAPER_NETWORKS[data]
