"""Fitting: kernels → prior, a stage per family; the best on held-out kernels wins."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

import dwp_init
from dwp_init import (
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
    Prior,
    load_prior,
    save_prior,
)
from dwp_init.files import write_bytes
from training.engine.stage import (
    Context,
    Stage,
    check_counts,
    load_checkpoint,
    read_done,
    record_metrics,
    save_checkpoint,
)
from training.fits.authors import UNSTATED
from training.fits.score import PRIOR, SCORES, SMOKE, score, thin
from training.fits.statistics import sample_statistics
from training.kernels.collect import PARTS, KernelSet

CHECKPOINT = "checkpoint.pt"
SCALES = (0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7)
OF_A_LAYER = {"layer", "kind"}  # what kernels stages of the same networks may differ in
_NOT_SHOWN = ("needs", "name", "evaluate_every")


@dataclass(frozen=True)
class Fit(Stage):
    """Fits one prior to a kernel data set and saves it under ``prior/``.

    Args:
        needs: The stage with the kernels.
        name: What the prior will be called.
        seed: Of initialisation, order and noise.
    """

    needs: tuple[str, ...] = ("kernels",)
    name: str = "my-prior"
    seed: int = 0
    family: ClassVar[str]

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        """Returns the prior fitted to ``kernels.train``, with what must be chosen chosen on ``kernels.validation``."""
        raise NotImplementedError

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        torch.manual_seed(self.seed)
        return self.keep(self.fit(kernels, folder, context.device).eval(), kernels, folder, context, {})

    def keep(
        self, prior: Prior, kernels: KernelSet, folder: Path, context: Context, more: dict[str, Any]
    ) -> dict[str, Any]:
        """Judges a fitted prior by the test kernels, and saves it with what it was made from; ``more`` are metrics."""
        effort, draws = (SMOKE, 1000) if context.smoke else ({}, 10_000)
        values, metrics = score(prior, kernels.test, **effort)
        write_bytes(folder / SCORES, save({"log_prob": values}))
        control = Gaussian(prior.kernel_shape).fit_(kernels.train)
        metrics["gaussian_log_prob"] = score(control, kernels.test, **effort)[1]["log_prob"]
        metrics |= more
        prior.cpu()
        metrics["samples"] = sample_statistics(prior, kernels.train, kernels.test, draws)
        source = self._source(context)
        prior.details = {
            "name": self.name,
            "license": UNSTATED if "checkpoints" in source else "MIT",  # those of others have terms of their own
            "source": source,
            "fit": {key: value for key, value in vars(self).items() if key not in _NOT_SHOWN},
            "metrics": metrics,
            "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
        }
        save_prior(prior, folder / PRIOR)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return {"family": self.family, "metrics": metrics}

    def _source(self, context: Context) -> dict[str, Any]:
        made = read_done(context.out / self.needs[0])
        return made["source"] | {key: made[key] for key in ("kernels", "kept", "norm_threshold") if key in made}


@dataclass(frozen=True)
class FitGaussian(Fit):
    """Fits the full-covariance Gaussian by maximum likelihood."""

    family: ClassVar[str] = "gaussian"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        return Gaussian(tuple(kernels.train.shape[1:])).fit_(kernels.train)


@dataclass(frozen=True)
class FitMixture(Fit):
    """Fits Gaussian scale mixtures and keeps the one under which the validation kernels are likeliest.

    Args:
        components: Numbers of components to try; those above the number of kernels are left out.
        shrinkages: Strengths of the pull to the covariance of all kernels to try, in kernels.
        scales: Strengths of each component; 1 alone is the usual mixture.
        restarts: Fits from different starts whose densities are averaged; the average is a mixture again, of
            ``restarts`` times as many components.
        most: Fitting kernels used, evenly spaced ones.
    """

    components: tuple[int, ...] = (6, 8, 10)
    shrinkages: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    scales: tuple[float, ...] = SCALES
    restarts: int = 8
    most: int = 20_000
    family: ClassVar[str] = "mixture"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        return self._best(kernels, folder)

    def _best(self, kernels: KernelSet, folder: Path, **labels: int) -> GaussianMixture:
        """Fits every mixture of the grid; each is recorded with the labels."""
        check_counts(restarts=self.restarts, most=self.most)
        train = thin(kernels.train, self.most)
        grid = [(count, pull) for count in self.components if count <= len(train) for pull in self.shrinkages]
        if not grid:
            raise ValueError(
                f"{min(self.components)} components need as many kernels to fit; there are {len(train)}: "
                f"lower components={self.components}"
            )
        best, best_value = None, -math.inf
        with tqdm(total=len(grid) * self.restarts, desc=self.name, unit="fit") as bar:
            for components, shrinkage in grid:
                mixture = self._average(train, components, shrinkage, bar)
                value = score(mixture, kernels.validation)[1]["log_prob"]
                record_metrics(folder, **labels, components=components, shrinkage=shrinkage, validation_log_prob=value)
                if value > best_value:
                    best, best_value = mixture, value
        if best is None:
            raise ValueError(
                f"no mixture of {self.name!r} gives the validation kernels a finite log p; their norms reach "
                f"{kernels.validation.flatten(1).norm(dim=1).max():.4g}: remove outliers"
            )
        return best

    def _average(self, train: Tensor, components: int, shrinkage: float, bar: tqdm) -> GaussianMixture:
        parts = []
        for restart in range(self.restarts):
            generator = torch.Generator().manual_seed(self.seed * 1009 + restart)
            part = GaussianMixture(tuple(train.shape[1:]), components, self.scales)
            parts.append(part.fit_(train, shrinkage, generator=generator))
            bar.update(1)
        return GaussianMixture.average(parts)


@dataclass(frozen=True)
class FitByDepth(FitMixture):
    """Fits a mixture to each of several layers' kernels and puts them together by relative depth.

    What is reported as log p is for kernels of unknown depth, as it is for any prior; ``log_prob_at_depth`` is for
    those whose depth is known, each kernel counting the same, and beside it that of a Gaussian for each depth, with the
    best reach of its own.

    Args:
        needs: The stages with the kernels of each layer, the first layer's first.
        depths: Of these layers: 0 the network's first convolution with kernels larger than 1×1, 1 its last.
        reaches: To how many layers on each side those may lie whose kernels a layer's mixture is fitted to with its
            own, to try; more than 0 where a layer has few kernels for their size, and all are of the same networks.
    """

    depths: tuple[float, ...] = ()
    reaches: tuple[int, ...] = (0,)
    family: ClassVar[str] = "mixture-by-depth"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        layers = [KernelSet.load(context.out / need) for need in self.needs]
        if len(layers) != len(self.depths):
            raise ValueError(f"each kernels stage needs its depth; needs={self.needs}, depths={self.depths}")
        MixtureByDepth(tuple(layers[0].train.shape[1:]), self.depths, (1,) * len(layers))  # refuses odd depths at once
        if not self.reaches or min(self.reaches) < 0:
            raise ValueError(f"reaches must be one or more numbers of layers, 0 or more; got {self.reaches}")
        self._check_held_out(context)
        torch.manual_seed(self.seed)

        def mixture(kernels: KernelSet, place: int, reach: int) -> Prior:
            return self._best(kernels, folder, layer=place, reach=reach)

        def gaussian(kernels: KernelSet, place: int, reach: int) -> Prior:
            return Gaussian(tuple(kernels.train.shape[1:])).fit_(kernels.train)

        found = [self._reaching(mixture, place, layers) for place in range(len(layers))]
        controls = [self._reaching(gaussian, place, layers)[1] for place in range(len(layers))]
        mixtures = [prior for _, prior in found]
        prior = MixtureByDepth.stack(self.depths, mixtures).eval()
        more = _at_depth(mixtures, controls, layers) | {"reaches": [reach for reach, _ in found]}
        return self.keep(prior, KernelSet.together(layers), folder, context, more)

    def _check_held_out(self, context: Context) -> None:
        """Raises where a layer's mixture might be fitted to kernels of networks that another layer holds out."""
        sources = {need: read_done(context.out / need)["source"] for need in self.needs}
        networks = {need: {key: source[key] for key in source.keys() - OF_A_LAYER} for need, source in sources.items()}
        first, *others = networks
        for need in others if max(self.reaches) > 0 else ():
            if differ := [key for key, value in networks[first].items() if networks[need].get(key) != value]:
                raise ValueError(
                    f"{first} and {need} differ in {', '.join(sorted(differ))}: fitted together, one could see "
                    "networks that the other holds out; make them alike, or set reaches=0"
                )

    def _reaching(
        self, fit: Callable[[KernelSet, int, int], Prior], place: int, layers: list[KernelSet]
    ) -> tuple[int, Prior]:
        """Fits to a layer's kernels with those at each reach; returns what is best on its own validation kernels."""
        found = {}
        for reach in self.reaches:
            near = layers[max(place - reach, 0) : place + reach + 1]
            found[reach] = fit(replace(layers[place], train=torch.cat([layer.train for layer in near])), place, reach)
        best = max(found, key=lambda reach: score(found[reach], layers[place].validation)[1]["log_prob"])
        return best, found[best]

    def _source(self, context: Context) -> dict[str, Any]:
        """Describes the kernels of all layers: what differs from layer to layer is a list, their numbers a sum."""
        each = [read_done(context.out / need) for need in self.needs]
        layers = [done["source"] for done in each]
        source = {
            key: value if all(layer[key] == value for layer in layers) else [layer[key] for layer in layers]
            for key, value in layers[0].items()
        }
        counts = {part: sum(done["kernels"][part] for done in each) for part in PARTS}
        return source | {"kernels": counts, "kept": [done["kept"] for done in each]}


def _at_depth(mixtures: list[Prior], controls: list[Prior], layers: list[KernelSet]) -> dict[str, Any]:
    values, beside = _by_depth(mixtures, layers), _by_depth(controls, layers)
    return {
        "log_prob_at_depth": _per_kernel(values, layers),
        "gaussian_log_prob_at_depth": _per_kernel(beside, layers),
        "log_prob_by_depth": values,
    }


def _by_depth(priors: Sequence[Prior], layers: list[KernelSet]) -> list[float]:
    return [score(prior, layer.test)[1]["log_prob"] for prior, layer in zip(priors, layers, strict=True)]


def _per_kernel(values: list[float], layers: list[KernelSet]) -> float:
    """Averages over all test kernels what is known of each layer's: the mean of layers would favour small ones."""
    counts = [len(layer.test) for layer in layers]
    return round(sum(value * count for value, count in zip(values, counts, strict=True)) / sum(counts), 3)


@dataclass(frozen=True)
class FitDensity(Fit):
    """Keeps learned kernels and picks the bandwidth of their kernel density on the validation kernels.

    Args:
        most: Kernels kept, evenly spaced ones.
    """

    most: int = 10_000
    family: ClassVar[str] = "kde"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        check_counts(most=self.most)
        kept = thin(kernels.train, self.most)
        return KernelDensity(tuple(kept.shape[1:]), len(kept)).fit_(kept, kernels.validation)


@dataclass(frozen=True)
class FitByGradient(Fit):
    """Trains a prior by AdamW on its log p or a bound on it; mean over the batch, learning rate decaying to 0.

    Every ``evaluate_every`` epochs log p of the validation kernels is estimated, and the best state is kept.

    Args:
        epochs: Passes over the kernels; 300 in the paper.
        batch_size: Kernels per step.
        lr: Initial learning rate, decaying linearly at every step.
        jitter: Standard deviation of the white noise added to whitened kernels, a regulariser.
        evaluate_every: Epochs between two looks at the validation kernels.
    """

    epochs: int = 300
    batch_size: int = 128
    lr: float = 1e-3
    jitter: float = 0.0
    evaluate_every: int = 5

    def build(self, shape: tuple[int, ...]) -> Prior:
        """Returns the prior before training."""
        raise NotImplementedError

    def bound(self, prior: Prior, kernels: Tensor) -> Tensor:
        """Maps kernels to what is maximised, ``(n,)``: log p(w), or a differentiable bound on it."""
        return prior.log_prob(kernels)

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        check_counts(epochs=self.epochs, batch_size=self.batch_size, evaluate_every=self.evaluate_every)
        prior = self.build(tuple(kernels.train.shape[1:]))
        if getattr(prior, "whiten", True):
            prior.whitening.fit_(kernels.train.flatten(1))
        return self._train(prior.to(device), kernels.train.to(device), kernels.validation.to(device), folder)

    def _train(self, prior: Prior, train: Tensor, validation: Tensor, folder: Path) -> Prior:
        optimizer = torch.optim.AdamW(prior.parameters(), lr=self.lr, weight_decay=0)
        state = {"epoch": 0, "best": float("-inf"), "best_state": copy.deepcopy(prior.state_dict())}
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            prior.load_state_dict(state["prior"])
            optimizer.load_state_dict(state["optimizer"])
        size = {"total": self.epochs * len(train), "initial": state["epoch"] * len(train)}
        with tqdm(**size, unit="kernel", unit_scale=True, desc=self.name) as bar:
            for epoch in range(state["epoch"], self.epochs):
                bound = self._epoch(prior, optimizer, train, epoch)
                bar.update(len(train))
                if (epoch + 1) % self.evaluate_every and epoch + 1 < self.epochs:
                    continue
                found = score(prior, validation, samples=32, most=2000)[1]["log_prob"]
                record_metrics(folder, epoch=epoch + 1, train_bound=round(bound, 3), validation_log_prob=found)
                bar.set_postfix(validation=f"{found:.2f} nats")
                if found > state["best"]:
                    state |= {"best": found, "best_state": copy.deepcopy(prior.state_dict())}
                state |= {"epoch": epoch + 1, "prior": prior.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(checkpoint, state)
        if state["best"] == float("-inf"):
            raise ValueError(
                f"the fit of {self.name!r} diverged: no finite log p on held-out kernels; lower lr={self.lr}"
            )
        prior.load_state_dict(state["best_state"])
        return prior

    def _epoch(self, prior: Prior, optimizer: torch.optim.Optimizer, train: Tensor, epoch: int) -> float:
        """One pass; its randomness depends on seed and epoch only, so that a resumed fit ends where it would have."""
        prior.train()
        torch.manual_seed(self.seed * 100_003 + epoch)
        batches = torch.randperm(len(train)).to(train.device).split(self.batch_size)
        batches = batches[: max(len(train) // self.batch_size, 1)]
        total, bound_sum = self.epochs * len(batches), torch.zeros((), device=train.device)
        for step, batch in enumerate(self._jittered(prior, train, batches), start=epoch * len(batches)):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - step / total)
            bound = self.bound(prior, batch).mean()
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            bound_sum += bound.detach()
        return (bound_sum / len(batches)).item()

    def _jittered(self, prior: Prior, train: Tensor, batches: tuple[Tensor, ...]) -> Iterator[Tensor]:
        for batch in batches:
            kernels = train[batch]
            if self.jitter:
                white = torch.randn(len(batch), prior.dim, device=train.device)
                noise = prior.whitening.inverse(self.jitter * white) - prior.whitening.loc
                kernels = kernels + noise.view_as(kernels)
            yield kernels


@dataclass(frozen=True)
class FitVAE(FitByGradient):
    """Trains a kernel VAE on the evidence lower bound (Eq. 4) or the importance-weighted one.

    Args:
        network: ``dense``, or ``paper`` for the networks of Appendix H.1.
        latent_dim: Dimensions of z.
        hidden: Width of the dense decoder; 128 by default.
        dropout: In the dense encoder, while fitting.
        min_scale: Floor of the decoder's standard deviation.
        whiten: Whether the networks see whitened kernels.
        importance_samples: Latents per kernel and step; 1, the evidence lower bound, in the paper.
    """

    network: str = "dense"
    latent_dim: int = 16
    hidden: int | None = None
    dropout: float = 0.0
    min_scale: float = 0.05
    whiten: bool = True
    importance_samples: int = 1
    family: ClassVar[str] = "vae"

    def build(self, shape: tuple[int, ...]) -> KernelVAE:
        return KernelVAE(shape, **self._arguments())

    def bound(self, prior: KernelVAE, kernels: Tensor) -> Tensor:
        check_counts(importance_samples=self.importance_samples)
        if self.importance_samples == 1:
            return prior.elbo(kernels)
        return prior.importance_bound(kernels, self.importance_samples)

    def _arguments(self) -> dict[str, Any]:
        names = ("network", "latent_dim", "hidden", "dropout", "min_scale", "whiten")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class FitChain(FitVAE):
    """Trains a Markov-chain prior (Eq. 9) as a kernel VAE is trained.

    Args:
        transitions: T.
    """

    transitions: int = 1
    family: ClassVar[str] = "chain"

    def build(self, shape: tuple[int, ...]) -> KernelChain:
        return KernelChain(shape, self.transitions, **self._arguments())


@dataclass(frozen=True)
class FitFlow(FitByGradient):
    """Trains a normalizing flow by maximum likelihood.

    Args:
        network: ``maf`` or ``nsf``.
        transforms: How many follow each other.
        hidden: Width of their hidden layers.
        coupling: Whether they are coupling transforms.
    """

    network: str = "maf"
    transforms: int = 3
    hidden: int = 64
    coupling: bool = False
    family: ClassVar[str] = "flow"

    def build(self, shape: tuple[int, ...]) -> Flow:
        return Flow(shape, self.network, self.transforms, self.hidden, self.coupling)


@dataclass(frozen=True)
class FitAutoregressive(FitByGradient):
    """Trains an autoregressive density by maximum likelihood.

    Args:
        hidden: Width of the first layer.
        mixtures: Normals in each factor.
        dropout: In both layers, while fitting.
    """

    hidden: int = 128
    mixtures: int = 4
    dropout: float = 0.0
    family: ClassVar[str] = "autoregressive"

    def build(self, shape: tuple[int, ...]) -> Autoregressive:
        return Autoregressive(shape, self.hidden, self.mixtures, self.dropout)


FITS: dict[str, type[Fit]] = {
    fit.family: fit for fit in (FitGaussian, FitMixture, FitDensity, FitFlow, FitAutoregressive, FitVAE, FitChain)
}


def fitted_prior(folder: Path) -> Prior:
    """Loads the prior that a finished fit left in its stage's folder."""
    return load_prior(folder / PRIOR)
