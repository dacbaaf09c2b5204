"""What a start is worth: networks that people train, from every start, each at its own learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.engine.options import check_counts, check_marks
from training.engine.records import Row, print_table
from training.engine.stage import Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.base import PairedRuns, network_for, read_images
from training.experiments.compare_inits import AT_START, benchmark_table, plot_benchmark
from training.experiments.paired import best_rates, by_mark
from training.images.augment import PADDING, moved
from training.images.split import Labelled, hold_out, stratified
from training.networks.loop import Step, accuracy, batches, train
from training.starts.base import (
    KAIMING,
    LEARNED_KINDS,
    STARTS,
    Learned,
    check_starts,
    initialize_,
    needing,
    spatial_convolutions,
)
from training.starts.learned import LEARNED_OWN, learned_kernels
from training.starts.priors import DWP_OWN, NOISE_OWN
from training.starts.probes import activation_scale, channel_rank

OWN_SCALE = (LEARNED_OWN, DWP_OWN, NOISE_OWN)  # starts that keep the scale of their source instead of He's
PROBE = 128  # images on which channel ranks and scales are measured, and for LSUV
SUMMARY_COLUMNS = ("init", "rate", "accuracy", "over_kaiming", "over_kaiming_95", "steps_to_kaiming", "channel_rank")


class SharedParts(NamedTuple):
    """What the runs share: images and labels, those to choose rates on among them, and learned kernels."""

    train: Labelled
    held_out: Labelled
    test: Labelled
    learned: Learned


@dataclass(frozen=True)
class BenchmarkInit(PairedRuns):
    """Trains a network from each start on paired seeds, and says how far each is ahead of Kaiming's.

    Only the weights of spatial convolutions differ between the runs of a seed. Adam's learning rate falls linearly to 0
    at every step. Its first value is chosen for each start by the accuracy after the last step on the last training
    images, which are never trained on, over other seeds; intervals are for the rates chosen in this way. Records
    ``<name>.csv``, ``<name>_runs.csv``, ``<name>_rates.csv`` and ``<name>.png``.

    Args:
        needs: Stages with learned kernels, of one channel; none by default.
        kinds: ``dense`` or ``depthwise``, for each of them.
        depths: Their relative depths, from 0 to 1.
        network: A network of :data:`training.networks.registry.NETWORKS`.
        filters: Its channels.
        priors: Bundled priors, for dwp; a layer that none fits has Kaiming's draw.
        inits: Names of starts; by default all except ``OWN_SCALE``, those that need ``priors`` or ``needs`` only where
            there are any.
        rates: Learning rates to choose from.
        rate_seeds: Runs of each to choose by.
        first_rate_seed: Seed of the first of these.
        hold_out: Training images, the last ones, to choose by, whatever ``labels`` is.
        labels: Labelled images to train on, as many of every class, drawn by the seed; all if 0.
        frozen: Whether spatial convolutions, with their biases, stay as they were initialised.
        augment: Whether images are shifted by up to 4 pixels and flipped, at random.
        test_images: Maximum number of test images, evenly spaced.
        batch_size: Images per step.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        marks: Steps at which accuracy is measured; training ends at the last.
    """

    kinds: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()
    name: str = "benchmark_init"
    data: str = "cifar10"
    network: str = "resnet"
    filters: tuple[int, ...] = (8, 16, 32)
    inits: tuple[str, ...] = ()
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    rate_seeds: int = 2
    first_rate_seed: int = 1000
    hold_out: int = 5000
    labels: int = 0
    frozen: bool = False
    augment: bool = False
    test_images: int = 2000
    batch_size: int = 64
    precision: str = "float32"
    marks: tuple[int, ...] = (25, 50, 100, 200)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every start that is compared."""
        lacking = (() if self.priors else needing("priors")) + (() if self.needs else needing("learned"))
        return self.inits or tuple(name for name in STARTS if name not in (*OWN_SCALE, *lacking))

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.workers`` processes: first to choose the rates, then at these."""
        self._check()
        parts = self.parts(context)
        for init in self.arms:  # so that settings are refused before anything is trained
            self.untrained(parts, init, 0)
        self.places(parts, 0)
        job = partial(self.train_one, parts)
        rate_seeds = range(self.first_rate_seed, self.first_rate_seed + self.rate_seeds)
        choosing = [(init, seed, rate, True) for seed in rate_seeds for init in self.arms for rate in self.rates]
        total = len(choosing) + len(self.arms) * self.seeds
        settings: dict[str, Any] = {"total": total, "each": self.marks[-1], "workers": context.workers}
        with Sweep(folder, ("init", "seed", "rate", "choosing"), desc=self.name, **settings) as sweep:
            tried = sweep(job, choosing)
            rates = best_rates(tried)
            rows = sweep(job, [(init, seed, rates[init], False) for seed in self.all_seeds() for init in self.arms])
        return self.summarize(folder, tried, rows)

    def _check(self) -> None:
        counts = {"seeds": self.seeds, "rate_seeds": self.rate_seeds, "hold_out": self.hold_out}
        check_counts(**counts, batch_size=self.batch_size, test_images=self.test_images)
        check_marks(self.marks)
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {self.precision!r}")
        if not self.rates or min(self.rates) <= 0 or len(set(self.rates)) != len(self.rates):
            raise ValueError(f"rates must be positive learning rates, each once; got {self.rates}")
        if max(self.first_seed, self.first_rate_seed) < min(
            self.first_seed + self.seeds, self.first_rate_seed + self.rate_seeds
        ):
            raise ValueError(
                f"the {self.rate_seeds} seeds from first_rate_seed={self.first_rate_seed}, which choose rates, must be "
                f"others than the {self.seeds} from first_seed={self.first_seed}"
            )
        odd = set(self.kinds) - set(LEARNED_KINDS) or not all(0 <= depth <= 1 for depth in self.depths)
        if not len(self.needs) == len(self.kinds) == len(self.depths) or odd:
            raise ValueError(
                f"each kernels stage needs its kind, {' or '.join(LEARNED_KINDS)}, and its depth from 0 to 1; got "
                f"needs={self.needs}, kinds={self.kinds}, depths={self.depths}"
            )
        check_starts(self.arms, priors=bool(self.priors), learned=bool(self.needs), batch=True)
        if KAIMING not in self.arms:
            raise ValueError(f"inits must contain {KAIMING}, which the others are compared with; got {self.arms}")

    def parts(self, context: Context) -> SharedParts:
        """Reads the images and the learned kernels."""
        train, test = read_images(context, self.data, test_images=self.test_images)
        train, held_out = hold_out(train, test, self.hold_out)
        learned = learned_kernels((context.out / need for need in self.needs), self.kinds, self.depths)
        return SharedParts(train, held_out, test, learned)

    def untrained(self, parts: SharedParts, init: str, seed: int) -> nn.Module:
        """Returns a network that starts from an initialisation, on the CPU."""
        torch.manual_seed(seed)
        network = network_for(parts.train, self.network, self.filters)
        batch = parts.train[0][:PROBE].cpu()
        initialize_(network, init, seed, priors=self.priors, learned=parts.learned, batch=batch)
        return network

    def places(self, parts: SharedParts, seed: int) -> Tensor:
        """Returns the images to train on, by number: all, or as many of every class, drawn by the seed."""
        labels = parts.train[1].cpu()
        return stratified(labels, self.labels, seed) if self.labels else torch.arange(len(labels))

    def train_one(self, parts: SharedParts, run: tuple[str, int, float, bool], progress: Progress) -> list[Row]:
        """Trains one network; returns its accuracies in %, on held-out images where a learning rate is to be chosen."""
        (init, seed, rate, choosing), (images, labels) = run, parts.train
        network = self.untrained(parts, init, seed).to(images.device).to(memory_format=torch.channels_last)
        row: Row = {"init": init, "seed": seed, "rate": rate, "choosing": choosing}
        row |= {} if choosing else at_start(network, images[:PROBE])
        for layer in spatial_convolutions(network).values():
            layer.requires_grad_(not self.frozen)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=rate, fused=True, capturable=images.device.type == "cuda")

        def look_up(batch: Tensor) -> Labelled:
            found = images[batch[:, 0]]
            return (moved(found, batch[:, 1:3], batch[:, 3]) if self.augment else found), labels[batch[:, 0]]

        judged_by = parts.held_out if choosing else parts.test
        found = train(
            Step(network, optimizer, look_up, images.device, self.precision),
            self.batches(parts, seed),
            rate,
            decay=True,
            progress=progress,
            marks=self.marks[-1:] if choosing else self.marks,
            measure=lambda _: round(100 * accuracy(network, *judged_by), 3),
        )
        return [row | {"accuracy": found}]

    def batches(self, parts: SharedParts, seed: int) -> Tensor:
        """Returns each step's images ``(steps, batch, 4)``: number, shifts down and right, and whether flipped."""
        places, generator = self.places(parts, seed), torch.Generator().manual_seed(seed)
        size = min(self.batch_size, len(places))
        order = places[batches(len(places), size, self.marks[-1], generator)].view(-1, 1)
        shifts = torch.randint(2 * PADDING + 1, (len(order), 2), generator=generator)
        flips = torch.randint(2, (len(order), 1), generator=generator)
        return torch.cat([order, shifts, flips], dim=1).view(self.marks[-1], size, 4)

    def summarize(self, folder: Path, tried: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
        """Records the tables and the figure of all runs."""
        table = benchmark_table(rows, self.marks)
        rates = [row | {"accuracy": row["accuracy"][-1]} for row in tried]
        for row in rates:
            row.pop("choosing")
        self.record(folder, table=table, runs=by_mark(rows, "accuracy", self.marks), rates=rates)
        few = f", {self.labels} labels" if self.labels else ""
        title = f"{self.network} on {self.data}{few}{', convolutions frozen' if self.frozen else ''}"
        plot_benchmark(table, folder / "record" / f"{self.name}.png", title)
        print_table([{key: row[key] for key in SUMMARY_COLUMNS} for row in table if row["step"] == self.marks[-1]])
        return {"table": table}


def at_start(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Measures channel ranks, their mean over layers and the last, and the least and greatest activation scale."""
    ranks, scales = channel_rank(network, images), activation_scale(network, images)
    values = (sum(ranks) / len(ranks), ranks[-1], min(scales), max(scales))
    return {key: float(f"{value:.5g}") for key, value in zip(AT_START, values, strict=True)}
