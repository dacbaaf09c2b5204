"""The experiment of Section 4.1: the paper's network, small stratified training sets, every prior, Algorithm 1."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import dwp_init
from dwp_init import Gaussian, GaussianMixture, KernelVAE
from training import bayes
from training.engine.options import check_counts
from training.engine.stage import Context
from training.images.split import hold_out, stratified, thin
from training.networks.paper import CIFARNet, MNISTNet

DWP, DWP_FIXED, MIXTURE, GAUSSIAN = "dwp", "dwp-fixed", "mixture", "gaussian"
LOG_UNIFORM, LOG_UNIFORM_AUTHORS = "log-uniform", "log-uniform-authors"
STANDARD, NORMAL, NONE = "standard-normal", "normal", "deterministic"
FROM_DWP, FROM_XAVIER = "dwp", "Xavier"
NETWORKS: dict[str, tuple[type[nn.Module], int]] = {"mnist": (MNISTNet, 2), "cifar10": (CIFARNet, 3)}
CLASSES = 10


@dataclass(frozen=True)
class LearnedPriors:
    """The bundled priors of an experiment, one for each kernel size, and what follows from them."""

    vaes: list[KernelVAE]
    mixtures: list[GaussianMixture]

    @classmethod
    def load(cls, vaes: tuple[str, ...], mixtures: tuple[str, ...]) -> "LearnedPriors":
        """Loads them by name."""
        return cls(*([dwp_init.load_prior(name) for name in names] for names in (vaes, mixtures)))

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


PRIORS: dict[str, Callable[[LearnedPriors], list[bayes.KL]]] = {
    DWP: lambda learned: [bayes.kl_from(prior) for prior in learned.vaes],
    DWP_FIXED: lambda learned: [bayes.kl_from(prior, train_reverse=False) for prior in learned.vaes],
    MIXTURE: lambda learned: [bayes.kl_from(prior) for prior in learned.mixtures],
    GAUSSIAN: lambda learned: [bayes.kl_from(prior) for prior in learned.gaussians()],
    LOG_UNIFORM: lambda learned: [bayes.LogUniformKL()],
    LOG_UNIFORM_AUTHORS: lambda learned: [bayes.TruncatedLogUniformKL()],
    STANDARD: lambda learned: [bayes.NormalKL()],
    NORMAL: lambda learned: learned.normals(),
    NONE: lambda learned: [],
}


@dataclass(frozen=True)
class Experiment:
    """What it takes to train and to test one network; the splits are the same for every prior and initialisation.

    So are the biases and classifiers of the networks of one split.

    Args:
        network: ``mnist`` or ``cifar10``, for the paper's network of that data set.
        filters: Channels of its convolutions.
        train: Images ``(n, c, h, w)`` and labels ``(n,)`` that splits are drawn from.
        test: The same, to test on.
        others: Images of something else, for the detection of unknown ones; may be none.
        learned: The learned priors.
        schedule: Of Algorithm 1.
        scale: Standard deviation of an additive posterior at the start.
        kernels: Kernels of a layer that a step looks at.
        samples: Networks of the ensemble.
    """

    network: str
    filters: tuple[int, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    others: Tensor
    learned: LearnedPriors
    schedule: bayes.Schedule
    scale: float
    kernels: int
    samples: int

    def trainer(self, size: int, splits: list[int], prior: str, init: str) -> bayes.Trainer:
        """Returns what trains a network for each split in one pass, from the start; its seed is the first split's."""
        objectives = [self.objective(split, prior, init) for split in splits]
        rows = [stratified(self.train[1], size, split) for split in splits]
        images, labels = (torch.stack([part[picked] for picked in rows]) for part in self.train)
        return bayes.Trainer(objectives, images, labels, self.schedule, seed=splits[0])

    def objective(self, split: int, prior: str, init: str) -> bayes.Objective:
        """Returns an untrained network with a posterior, and its divergences from a prior of ``PRIORS``."""
        torch.manual_seed(split)
        network = NETWORKS[self.network][0](self.filters)
        if init == FROM_DWP:
            dwp_init.apply_(network, self.learned.vaes, scale="prior", seed=split)
        else:
            generator = torch.Generator().manual_seed(1000 + split)
            for layer in network.features:
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_normal_(layer.weight, generator=generator)
        if prior == LOG_UNIFORM_AUTHORS:
            bayes.bayesianize_(network, kind=bayes.RelativeBayesConv2d)
        elif prior != NONE:
            bayes.bayesianize_(network, scale=self.scale)
        return bayes.Objective(network.to(self.train[0].device), PRIORS[prior](self.learned), self.kernels)

    def scores(self, objective: bayes.Objective, split: int) -> dict[str, float]:
        """Tests a trained network: its ensemble, its mean weights, single samples, and unknown images."""
        network, (images, labels) = objective.network, self.test
        both, known = torch.cat([images, self.others]), len(images)
        mean = bayes.predict(network, both)
        generator = torch.Generator(images.device).manual_seed(split)
        drawn = bayes.predict_samples(network, both, self.samples, generator) if objective.layers else mean[None]
        ensemble = drawn.mean(0)
        one = [bayes.prediction_scores(part[:known], labels)["accuracy"] for part in drawn]
        found = {
            **bayes.prediction_scores(ensemble[:known], labels),
            "accuracy_mean_weights": bayes.prediction_scores(mean[:known], labels)["accuracy"],
            "accuracy_one_sample": sum(one) / len(one),
        }
        if len(self.others):
            found["ood_auroc"] = bayes.ood_auroc(ensemble[:known], ensemble[known:])
        return {name: round(value, 4) for name, value in found.items()}


@dataclass(frozen=True)
class Data:
    """Where the images of an experiment come from.

    Args:
        name: Of the data set, ``mnist`` or ``cifar10``.
        others: Name of the data set whose test images are the unknown ones; none if empty.
        hold_out: Training images, the last ones, that no split takes and that stand in for the test images.
        test_images: So many evenly spaced images to test on at the most, and as many of ``others``.
    """

    name: str = "mnist"
    others: str = ""
    hold_out: int = 0
    test_images: int = 10_000

    def load(self, context: Context) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """Returns what the splits are drawn from, what is tested on, and the unknown images."""
        if self.name not in NETWORKS:
            raise ValueError(f"data must be one of {', '.join(NETWORKS)}; got {self.name!r}")
        check_counts(test_images=self.test_images)
        train, test = (context.images(self.name, split).to(context.device) for split in ("train", "test"))
        train, test = hold_out(train, test, self.hold_out)
        test = (thin(test[0], self.test_images), thin(test[1], self.test_images))
        others = context.images(self.others, "test").to(context.device)[0] if self.others else test[0][:0]
        if others.shape[1:] != test[0].shape[1:]:
            shapes = f"{tuple(others.shape[1:])}, not {tuple(test[0].shape[1:])}"
            raise ValueError(f"images of others={self.others!r} are {shapes} as those of {self.name!r}; choose another")
        return train, test, thin(others, self.test_images)


def check_filters(network: str, filters: tuple[int, ...]) -> None:
    """Raises ``ValueError`` unless there is a number of filters for each convolution."""
    count = NETWORKS[network][1]
    if len(filters) != count or any(number < 1 for number in filters):
        raise ValueError(f"filters must be {count} numbers from 1 up, for the {network} network; got {filters}")
