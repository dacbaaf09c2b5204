"""How fast a network trains from each initialisation (Section 4.3, Fig. 4b): paired seeds, one table, one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import dwp_init
from training.engine.options import check_counts, check_marks
from training.engine.records import Row, print_table
from training.engine.stage import FIXED, Context
from training.engine.workers import Progress
from training.experiments.base import PairedRuns, Parts, network_for, read_images
from training.experiments.paired import by_mark, comparison, curves
from training.figures.style import add_legend, log_ticks, plot_band, save_figure
from training.fits.score import FITTED
from training.networks.loop import Step, accuracy, batches, train
from training.starts.base import KAIMING, ConvLayer, at_he_rms, check_starts, initialize_, legend
from training.starts.controls import NOISE_HE, OWN, XAVIER
from training.starts.learned import LEARNED_HE, LEARNED_OWN, learned_kernels
from training.starts.priors import DWP, DWP_ORTHOGONAL, DWP_OWN

WITHOUT_PRIORS = (OWN, XAVIER, KAIMING, NOISE_HE, LEARNED_HE, LEARNED_OWN)
PLOTTED = (DWP, DWP_ORTHOGONAL, "scale mixture", LEARNED_HE, "dense VAE", "Gaussian prior", KAIMING, NOISE_HE, XAVIER)
BASELINES = {"kaiming": KAIMING, "learned": LEARNED_HE}
FAMILY_COLOURS = {"scale mixture": "#c0392b", "dense VAE": "#8e44ad", "Gaussian prior": "#d68910"}


@dataclass(frozen=True)
class Converge(PairedRuns):
    """Trains a network of the paper from each initialisation, with the same data order, biases and classifier.

    Args:
        needs: The stages with the learned 7×7 and 5×5 kernels, then the fits of each of ``families``, a pair each. None
            where nothing starts from learned kernels or fits.
        families: Names of the initialisations from these fits; ``…, decoder mean`` draws without noise.
        network: Name of a network with 7×7 and 5×5 kernels: ``mnist`` or ``cifar``.
        priors: The bundled priors of the two kernel sizes, or a set, called dwp; none by default.
        draws: The starts from the bundled priors.
        filters: Channels of the convolutions.
        hold_out: Number of training images, the last ones, that replace the test images, for choices; 0 for figures
            that are reported.
        test_images: Maximum number of images on which accuracy is measured, evenly spaced.
        batch_size: Images per step.
        lr: Learning rate of Adam, constant.
        marks: Steps at which accuracy is measured; training ends at the last.
    """

    needs: tuple[str, ...] = ("kernels_7x7", "kernels_5x5")
    families: tuple[str, ...] = ()
    name: str = "converge_mnist"
    network: str = "mnist"
    draws: tuple[str, ...] = field(default=(DWP, DWP_OWN), metadata=FIXED)
    filters: tuple[int, ...] = (32, 128)
    hold_out: int = 0
    test_images: int = 10_000
    batch_size: int = 128
    lr: float = 1e-3
    marks: tuple[int, ...] = (10, 25, 50, 80, 120, 200)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every start that is compared."""
        controls = WITHOUT_PRIORS if self.needs else WITHOUT_PRIORS[:-2]
        return controls + (self.draws if self.priors else ()) + self.families

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, batch_size=self.batch_size, test_images=self.test_images)
        check_marks(self.marks)
        job = partial(self.train_one, self.parts(context))
        runs = by_mark(self.sweep(folder, context, job, self.marks[-1]), "accuracy", self.marks)
        table = comparison(runs, "accuracy", BASELINES)
        self.record(folder, table=table, runs=runs)
        title = f"{self.data.upper()}: the paper's ConvNet, by initialisation"
        plot_convergence(curves(runs, "accuracy"), self.marks, folder / "record" / f"{self.name}.png", title)
        print_table([row for row in table if row["step"] in (25, 120, self.marks[-1])])
        return {"table": table}

    def parts(self, context: Context) -> Parts:
        """Reads the images and the learned kernels."""
        if self.priors:
            check_starts(self.draws, priors=True, learned=False)
        fits = len(self.needs[2:])
        if len(self.needs) == 1 or fits != 2 * len(self.families):
            raise ValueError(
                f"needs names {len(self.needs[:2])} kernels stages and {fits} fits; there are 2 layers, and "
                f"{len(self.families)} families with a pair each"
            )
        train, test = read_images(context, self.data, self.hold_out, self.test_images)
        return Parts(train, test, learned_kernels(context.out / need for need in self.needs[:2]), context.out)

    def untrained(self, parts: Parts, init: str, seed: int) -> nn.Module:
        """Returns a network that starts from an initialisation."""
        torch.manual_seed(seed)
        network = network_for(parts.train, self.network, self.filters)
        if init in self.families:
            first = 2 + 2 * self.families.index(init)
            pair = [parts.folder / need / FITTED for need in self.needs[first : first + 2]]
            mean = init.endswith("decoder mean")
            drawn = dwp_init.apply_(network, pair, scale="prior", noise=not mean, seed=seed).initialized
            with torch.no_grad():
                for layer in (cast(ConvLayer, network.get_submodule(name)) for name in drawn):
                    layer.weight.copy_(at_he_rms(layer, layer.weight))
        else:
            initialize_(network, init, seed, priors=self.priors, learned=parts.learned, strict=True)
        return network

    def train_one(self, parts: Parts, run: tuple[str, int], progress: Progress) -> list[Row]:
        """Trains one network; returns its accuracies in %."""
        (init, seed), (images, labels) = run, parts.train
        network = self.untrained(parts, init, seed).to(images.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        step = Step(network, optimizer, lambda batch: (images[batch], labels[batch]), images.device)
        order = batches(len(images), self.batch_size, self.marks[-1], torch.Generator().manual_seed(seed))
        found = train(
            step,
            order,
            self.lr,
            progress=progress,
            marks=self.marks,
            measure=lambda _: round(100 * accuracy(network, *parts.test), 3),
        )
        return [{"init": init, "seed": seed, "accuracy": found}]


def plot_convergence(found: Mapping[str, Tensor], marks: Sequence[int], path: Path, title: str) -> None:
    """Draws accuracy over steps, mean and standard deviation over seeds, as in Fig. 4(b).

    Only the initialisations of ``PLOTTED`` are drawn, because more lines would hide each other; the tables have all.

    Args:
        found: Accuracies in %, ``(seeds, marks)``, by initialisation.
        marks: The steps.
        path: Path of the PNG.
        title: Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for init in [init for init in PLOTTED if init in found]:
        label, colour = legend(init)
        plot_band(axes, marks, found[init], label, colour or FAMILY_COLOURS[init], marker="o", markersize=3)
    axes.set(xlabel="steps", ylabel="accuracy, %", title=title)
    log_ticks(
        axes, marks if len(marks) <= 10 else [mark for mark in (5, 10, 20, 50, 100, 200, 500) if mark <= marks[-1]]
    )
    add_legend(axes)
    save_figure(figure, path)
