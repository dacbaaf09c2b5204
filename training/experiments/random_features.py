"""Features of convolutions that are drawn and then fixed, of networks of several widths (Section 4.2, Fig. 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from training.engine.options import check_counts
from training.engine.records import Row, print_table
from training.engine.stage import FIXED, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.base import PairedRuns, Parts, network_for
from training.experiments.paired import comparison, curves
from training.experiments.paper import CALLED, RANDOM_FEATURES, plot_paper
from training.figures.style import add_legend, log_ticks, mean_and_sd, save_figure
from training.networks.loop import accuracy, descend, train
from training.starts.base import KAIMING, initialize_, legend
from training.starts.controls import NOISE_HE, XAVIER
from training.starts.priors import DWP, DWP_ORTHOGONAL, DWP_OWN, NOISE_OWN

COMPARED = (DWP, DWP_OWN, DWP_ORTHOGONAL, XAVIER, KAIMING, NOISE_HE, NOISE_OWN)
FEATURES_AT_ONCE = 500  # images


@dataclass(frozen=True)
class RandomFeatures(PairedRuns):
    """Draws the convolutions of a network of the paper, fixes them and trains the rest.

    Records ``<name>.csv``, ``<name>_runs.csv`` and ``<name>.png``. As the convolutions are fixed, the features of all
    images are made once for each network and kept in memory, in float32: 0.3 GB a worker for MNIST at k = 1, 1.5 GB
    for 60,000 images of the CIFAR network. The networks of one seed and k have the same classifiers at the start, the
    same biases, PyTorch's, and the same order of images.

    Args:
        needs: Stages with learned kernels, one for each kernel size, to start from too; none by default.
        network: ``mnist`` or ``cifar``: a network of :data:`training.networks.registry.NETWORKS` of ``features`` and
            ``classifier``.
        filters: Channels of the convolutions at k = 1.
        scales: The scales k of all these numbers.
        inits: The starts; those from learned kernels are added with ``needs``.
        hold_out: Number of training images, the last ones, that replace the test images, for choices; 0 for figures
            that are reported.
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Learning rate of Adam at the first step, from where it falls linearly to 0.
        unit_rms: Whether a network's features are divided by one number, their root mean square over the training
            images, so that a learning rate means the same at every scale of the convolutions. Otherwise training from
            small scales, such as Xavier's, is far from its end after some passes.
    """

    name: str = "random_features"
    network: str = "mnist"
    filters: tuple[int, ...] = (32, 128)
    scales: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    priors: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    inits: tuple[str, ...] = field(default=COMPARED, metadata=FIXED)
    seeds: int = 10
    hold_out: int = 0
    epochs: int = 10
    batch_size: int = 256
    lr: float = 1e-3
    unit_rms: bool = True

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, epochs=self.epochs, batch_size=self.batch_size)
        if not self.scales or min(self.scales) <= 0 or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales must be above 0 and rise, each once; got {self.scales}")
        job = partial(self.train_one, self.parts(context))
        runs = list(product(self.all_seeds(), self.scales, self.arms))
        each = self.epochs + 1  # making the features counts as one
        settings: dict[str, Any] = {"total": len(runs), "each": each, "engine": context.engine}
        with Sweep(folder, ("seed", "k", "init"), unit="pass", desc=self.name, **settings) as sweep:
            rows = sweep(job, runs)
        table = features_table(rows, self.data)
        self.record(folder, table=table, runs=rows)
        title = f"{self.data.upper()}: random features, {self.seeds} seeds"
        plot_scales(rows, RANDOM_FEATURES.get(self.data, {}), folder / "record" / f"{self.name}.png", title)
        print_table(table)
        return {"table": table}

    def parts(self, context: Context) -> Parts:
        """Reads the images and the learned kernels, and checks that they suit the settings."""
        parts = self.read(context, self.hold_out)
        network = self.untrained(parts, self.scales[0])
        if not isinstance(getattr(network, "features", None), nn.Module) or not hasattr(network, "classifier"):
            raise ValueError(f"the network must have features and classifier, as mnist and cifar; got {self.network!r}")
        return parts

    def untrained(self, parts: Parts, k: float) -> nn.Module:
        """Returns a network of ``k`` times the filters, rounded, at least one each."""
        return network_for(parts.train, self.network, tuple(max(round(k * count), 1) for count in self.filters))

    def train_one(self, parts: Parts, run: tuple[int, float, str], progress: Progress) -> list[Row]:
        """Makes the features of one network and trains its classifier; returns its accuracy in %."""
        (seed, k, init), (images, labels), (test_images, test_labels) = run, parts.train, parts.test
        torch.manual_seed(seed)
        network = self.untrained(parts, k)
        initialize_(network, init, seed, priors=self.priors, learned=parts.learned, strict=True)
        network = network.to(images.device).to(memory_format=torch.channels_last)
        features, classifier = network.get_submodule("features"), network.get_submodule("classifier")
        found, test_found = extract(features, images), extract(features, test_images)
        if self.unit_rms:
            rms = found.square().mean().sqrt()
            found, test_found = found.div_(rms), test_found.div_(rms)
        progress(1)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=self.lr)
        generator = torch.Generator().manual_seed(seed)
        passes = [torch.randperm(len(images), generator=generator).split(self.batch_size) for _ in range(self.epochs)]

        def step(batch: Tensor, lr: float) -> None:
            rows = batch.to(images.device)
            descend(F.cross_entropy(classifier(found[rows]), labels[rows]), optimizer, lr)

        ends = range(len(passes[0]), self.epochs * len(passes[0]) + 1, len(passes[0]))
        order = [batch for one in passes for batch in one]
        train(step, order, self.lr, decay=True, marks=ends, measure=lambda _: progress(1))
        right = round(100 * accuracy(classifier, test_found, test_labels), 3)
        return [{"init": init, "k": k, "seed": seed, "accuracy": right}]


def features_table(runs: Sequence[Row], data: str) -> list[Row]:
    """Makes the table of runs, a row per scale: accuracies, leads over Xavier and Kaiming, the paper's values."""
    table = comparison(runs, "accuracy", {"xavier": XAVIER, "kaiming": KAIMING}, "k")
    for row in table:
        seeds = row.pop("seeds")
        mean, sd = RANDOM_FEATURES.get(data, {}).get(CALLED.get(row["init"], ""), {}).get(row["k"], ("", ""))
        row |= {"paper": mean, "paper_sd": sd, "seeds": seeds}
    return table


def plot_scales(
    runs: Sequence[Row], paper: Mapping[str, Mapping[float, tuple[float, float]]], path: Path, title: str
) -> None:
    """Draws accuracy over the scale of the layers' widths, mean and standard deviation, as in Fig. 3.

    Args:
        runs: A row per initialisation, scale and seed.
        paper: Mean and standard deviation in the paper, by its initialisation and scale: faint markers.
        path: Path of the PNG.
        title: Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    scales = sorted({row["k"] for row in runs})
    for init, values in curves(runs, "accuracy", "k").items():
        label, colour = legend(init)
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 2, "linewidth": 1.2}
        axes.errorbar(scales, *mean_and_sd(values), color=colour, label=label, **style)
    for name, found in paper.items():
        plot_paper(axes, name, {scale: mean for scale, (mean, _) in found.items()})
    ticks = sorted({*scales, *(scale for found in paper.values() for scale in found)})
    log_ticks(axes, ticks, [f"1/{1 / scale:g}" if scale < 1 else f"{scale:g}" for scale in ticks], base=2)
    axes.set(xlabel="scale k of the numbers of filters", ylabel="test accuracy, %", title=title)
    add_legend(axes, fontsize=7)
    save_figure(figure, path)


@torch.no_grad()
def extract(features: nn.Module, images: Tensor) -> Tensor:
    """Returns the features ``(n, d)`` of images ``(n, c, h, w)``, made batch by batch."""
    found = torch.empty(0)
    for start in range(0, len(images), FEATURES_AT_ONCE):
        part = features(images[start : start + FEATURES_AT_ONCE].contiguous(memory_format=torch.channels_last))
        found = found if start else part.new_empty(len(images), part.shape[1])
        found[start : start + FEATURES_AT_ONCE] = part
    return found
