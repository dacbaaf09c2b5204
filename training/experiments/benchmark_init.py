"""What an initialisation is worth: networks that people train, from every baseline, each at its own learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.engine.options import check_counts, check_marks
from training.engine.records import print_table, read_metrics, record_metrics, write_table
from training.engine.stage import Context, Stage
from training.engine.workers import Progress, run_jobs
from training.experiments.compare_inits import AT_START, BASELINE, best_rates, plot_benchmark, summary
from training.images.augment import PADDING, moved
from training.images.split import thin
from training.kernels.kernelset import KernelSet
from training.networks.loop import Step, accuracy
from training.networks.registry import build
from training.starts.inits import (
    FROM_LEARNED,
    FROM_PRIORS,
    INITS,
    KINDS,
    Learned,
    activation_scale,
    channel_rank,
    check_init,
    initialize_,
    spatial_convolutions,
)
from training.starts.priors import bundled_digests

PROBE = 128  # images on which channel ranks and scales are measured, and for LSUV

Run = tuple[str, int, float, bool]  # initialisation, seed, learning rate, whether it is to choose that rate


@dataclass(frozen=True)
class BenchmarkInit(Stage):
    """Trains a network from each initialisation on paired seeds, and says how far each is ahead of Kaiming's.

    Only the weights of spatial convolutions differ between the runs of a seed: biases, the other layers, images and
    their order are the same. Adam, learning rate decaying linearly to 0 at every step. The initial one is chosen for
    each initialisation by the accuracy after the last step on the last training images, which are never trained on,
    over seeds of its own; intervals are for the rates so chosen. Records ``<name>.csv``, ``<name>_runs.csv``,
    ``<name>_rates.csv`` and ``<name>.png``.

    Args:
        needs: Stages with learned kernels, of one channel; none by default.
        kinds: ``dense`` or ``depthwise``, for each of them.
        depths: Their relative depths, from 0 to 1.
        name: Of the record.
        data: Name of the data set.
        network: A network of :data:`training.networks.registry.NETWORKS`.
        filters: Its channels.
        priors: Bundled priors, for dwp; a layer that none fits has Kaiming's draw.
        inits: Which of :data:`training.starts.inits.INITS`; by default all, those that need ``priors`` or ``needs``
            where there are any.
        seeds: Number of paired runs.
        first_seed: Seed of the first.
        rates: Learning rates to choose from.
        rate_seeds: Runs of each to choose by.
        first_rate_seed: Seed of the first of these.
        hold_out: Training images, the last ones, to choose by, whatever ``labels`` is.
        labels: Labelled images to train on, as many of every class, drawn by the seed; all if 0.
        frozen: Whether spatial convolutions, with their biases, stay as they were initialised.
        augment: Whether images are shifted by up to 4 pixels and flipped, at random.
        test_images: So many evenly spaced images to measure accuracy on at the most.
        batch_size: Images per step.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        marks: Steps at which accuracy is measured; training ends at the last.
    """

    needs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()
    name: str = "benchmark_init"
    data: str = "cifar10"
    network: str = "resnet"
    filters: tuple[int, ...] = (8, 16, 32)
    priors: tuple[str, ...] = ()
    inits: tuple[str, ...] = ()
    seeds: int = 8
    first_seed: int = 0
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

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every initialisation that is compared."""
        lacking = (FROM_PRIORS if not self.priors else ()) + (FROM_LEARNED if not self.needs else ())
        return self.inits or tuple(init for init in INITS if init not in lacking)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.workers`` processes: first to choose the rates, then at these."""
        self._check()
        job = self._job(context)
        job.check()
        done = {_key(row): row for row in read_metrics(folder)}
        rate_seeds = range(self.first_rate_seed, self.first_rate_seed + self.rate_seeds)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        choosing = [(init, seed, rate, True) for seed in rate_seeds for init in self.arms for rate in self.rates]
        total = (len(choosing) + len(self.arms) * self.seeds) * self.marks[-1]
        with tqdm(total=total, initial=len(done) * self.marks[-1], unit="step", desc=self.name) as bar:

            def train(runs: Sequence[Run]) -> list[dict[str, Any]]:
                missing = [run for run in runs if run not in done]
                for row in run_jobs(job.train, missing, context.workers, bar.update):
                    record_metrics(folder, **row)
                    done[_key(row)] = row
                return [done[run] for run in runs]

            rates = best_rates(train(choosing))
            rows = train([(init, seed, rates[init], False) for seed in seeds for init in self.arms])
        return self._summarize(folder / "record", [done[run] for run in choosing], rows)

    def _check(self) -> None:
        counts = {"seeds": self.seeds, "rate_seeds": self.rate_seeds, "hold_out": self.hold_out}
        check_counts(**counts, batch_size=self.batch_size, test_images=self.test_images)
        check_marks(self.marks)
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is 'float32' or 'bfloat16'; got {self.precision!r}")
        if not self.rates or min(self.rates) <= 0 or len(set(self.rates)) != len(self.rates):
            raise ValueError(f"rates must be positive learning rates, each once; got {self.rates}")
        if max(self.first_seed, self.first_rate_seed) < min(
            self.first_seed + self.seeds, self.first_rate_seed + self.rate_seeds
        ):
            raise ValueError(
                f"the {self.rate_seeds} seeds from first_rate_seed={self.first_rate_seed}, which choose rates, must be "
                f"others than the {self.seeds} from first_seed={self.first_seed}"
            )
        if BASELINE not in self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError(f"inits must be different, and {BASELINE} among them; got {'; '.join(self.arms)}")
        odd = set(self.kinds) - set(KINDS) or not all(0 <= depth <= 1 for depth in self.depths)
        if not len(self.needs) == len(self.kinds) == len(self.depths) or odd:
            raise ValueError(
                f"each kernels stage needs its kind, {' or '.join(KINDS)}, and its depth from 0 to 1; got "
                f"needs={self.needs}, kinds={self.kinds}, depths={self.depths}"
            )
        for init in self.arms:
            check_init(init, priors=bool(self.priors), learned=bool(self.needs))

    def _job(self, context: Context) -> "_Job":
        images, labels = context.images(self.data, "train").to(context.device)
        test = tuple(thin(part, self.test_images) for part in context.images(self.data, "test").to(context.device))
        if self.hold_out >= len(images):
            raise ValueError(f"hold_out must leave some of {len(images)} training images; got {self.hold_out}")
        held_out = (images[-self.hold_out :], labels[-self.hold_out :])
        train = (images[: -self.hold_out], labels[: -self.hold_out])
        learned: dict[tuple[str, int], dict[float, Tensor]] = {}
        for need, kind, depth in zip(self.needs, self.kinds, self.depths, strict=True):
            kernels = KernelSet.load(context.out / need).train
            by_depth = learned.setdefault((kind, kernels.shape[-1]), {})
            if kernels.shape[1] != 1 or depth in by_depth:
                raise ValueError(
                    f"kernels of one channel are drawn, from one stage for each kind, size and depth; {need} has "
                    f"{tuple(kernels.shape[1:])} {kind} ones at depth {depth}"
                )
            by_depth[depth] = kernels
        return _Job(self, train, held_out, test, learned)

    def _summarize(self, record: Path, chosen_from: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
        table = summary(rows, self.marks)
        tried = ("init", "seed", "rate")
        rates = [{key: row[key] for key in tried} | {"accuracy": row["accuracy"][-1]} for row in chosen_from]
        flat = [
            {"init": row["init"], "seed": row["seed"], "rate": row["rate"], "step": step, "accuracy": value}
            for row in rows
            for step, value in zip(self.marks, row["accuracy"], strict=True)
        ]
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", flat)
        write_table(record / f"{self.name}_rates.csv", rates)
        few = f", {self.labels} labels" if self.labels else ""
        title = f"{self.network} on {self.data}{few}{', convolutions frozen' if self.frozen else ''}"
        plot_benchmark(table, record / f"{self.name}.png", title)
        print_table([{key: row[key] for key in _SHOWN} for row in table if row["step"] == self.marks[-1]])
        return {"table": table}


_SHOWN = ("init", "rate", "accuracy", "over_kaiming", "over_kaiming_95", "steps_to_kaiming", "channel_rank")


def _key(row: dict[str, Any]) -> Run:
    return row["init"], row["seed"], row["rate"], row["choosing"]


@dataclass(frozen=True)
class _Job:
    stage: BenchmarkInit
    train_data: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    learned: Learned

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train_data[0].device

    def network(self, init: str, seed: int) -> nn.Module:
        """Returns an untrained network on the CPU."""
        stage, (images, labels) = self.stage, self.train_data
        torch.manual_seed(seed)
        network = build(stage.network, stage.filters, int(labels.max()) + 1, tuple(images.shape[1:]))
        options = {"priors": stage.priors, "learned": self.learned, "batch": images[:PROBE].cpu()}
        initialize_(network, init, seed, **options)
        return network

    def check(self) -> None:
        """Makes every network once, so that settings are refused before anything is trained."""
        for init in self.stage.arms:
            self.network(init, 0)
        self.places(0)

    def places(self, seed: int) -> Tensor:
        """Returns the images to train on, by number: all, or as many of every class, drawn by the seed."""
        stage, labels = self.stage, self.train_data[1].cpu()
        if not stage.labels:
            return torch.arange(len(labels))
        classes = int(labels.max()) + 1
        each = stage.labels // classes
        least = int(labels.bincount().min())
        if stage.labels < 0 or stage.labels % classes or each > least:
            raise ValueError(
                f"labels must be a multiple of the {classes} classes, up to {least} of each; got {stage.labels}"
            )
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        return torch.cat([order[labels[order] == label][:each] for label in range(classes)])

    def train(self, run: Run, progress: Progress) -> dict[str, Any]:
        """Trains one network; returns its accuracies in %, on held-out images where a learning rate is to be chosen."""
        (init, seed, rate, choosing), stage = run, self.stage
        network = self.network(init, seed).to(self.device, memory_format=torch.channels_last)
        row = {"init": init, "seed": seed, "rate": rate, "choosing": choosing}
        row |= {} if choosing else self._at_start(network)
        for layer in spatial_convolutions(network).values():
            layer.requires_grad_(not stage.frozen)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=rate, fused=True, capturable=self.device.type == "cuda")
        step = Step(network, optimizer, self._look_up, self.device, stage.precision)
        found, judged_by = [], self.held_out if choosing else self.test
        for number, batch in enumerate(self._batches(seed)):
            step(batch.to(self.device), rate * (1 - number / stage.marks[-1]))
            progress(1)
            if number + 1 in (stage.marks[-1:] if choosing else stage.marks):
                found.append(round(100 * accuracy(network, *judged_by), 3))
        return row | {"accuracy": found}

    def _at_start(self, network: nn.Module) -> dict[str, float]:
        """Measures channel ranks, their mean over layers and the last, and the least and greatest activation scale."""
        images = self.train_data[0][:PROBE]
        ranks, scales = channel_rank(network, images), activation_scale(network, images)
        values = (sum(ranks) / len(ranks), ranks[-1], min(scales), max(scales))
        return {key: float(f"{value:.5g}") for key, value in zip(AT_START, values, strict=True)}

    def _batches(self, seed: int) -> Tensor:
        """Returns each step's images ``(steps, batch, 4)``: number, shifts down and right, and whether flipped."""
        stage, places = self.stage, self.places(seed)
        generator = torch.Generator().manual_seed(seed)
        size = min(stage.batch_size, len(places))
        needed = stage.marks[-1] * size
        passes = range(-(-needed // len(places)))
        order = torch.cat([places[torch.randperm(len(places), generator=generator)] for _ in passes])[:needed]
        shifts = torch.randint(2 * PADDING + 1, (needed, 2), generator=generator)
        flips = torch.randint(2, (needed, 1), generator=generator)
        return torch.cat([order[:, None], shifts, flips], dim=1).view(stage.marks[-1], size, 4)

    def _look_up(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.train_data
        found = images[batch[:, 0]]
        return (moved(found, batch[:, 1:3], batch[:, 3]) if self.stage.augment else found), labels[batch[:, 0]]
