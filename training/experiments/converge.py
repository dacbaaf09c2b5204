"""How fast a network trains from each initialisation (Section 4.3, Fig. 4b): paired seeds, one table, one figure."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import dwp_init
from training.engine.options import check_counts, check_marks
from training.engine.records import print_table, read_metrics, record_metrics, write_table
from training.engine.stage import FIXED, Context, Stage
from training.engine.workers import Progress, run_jobs
from training.figures.experiments import plot_convergence
from training.fits.score import PRIOR
from training.images.split import thin
from training.kernels.kernelset import KernelSet
from training.networks.loop import accuracy
from training.networks.registry import build
from training.starts.fills import (
    DEFAULT,
    DWP,
    DWP_OWN,
    FROM_KERNELS,
    KAIMING,
    LEARNED,
    LEARNED_OWN,
    NOISE,
    XAVIER,
    check_inits,
    initialize_,
)
from training.starts.priors import bundled_digests

BASELINE = KAIMING
CONTROLS = (DEFAULT, XAVIER, BASELINE, NOISE, LEARNED, LEARNED_OWN)
BUNDLED = (DWP, DWP_OWN)


@dataclass(frozen=True)
class Converge(Stage):
    """Trains a network of the paper from each initialisation, with the same data order, biases and classifier.

    Args:
        needs: The stages with the learned 7×7 and 5×5 kernels, then the fits of each of ``families``, a pair each. None
            where nothing starts from learned kernels or fits.
        families: What the initialisations from these fits are called; ``…, decoder mean`` draws without noise.
        name: Of the record.
        data: Name of the data set.
        network: A network of :data:`training.networks.registry.NETWORKS` with 7×7 and 5×5 kernels, ``mnist`` or
            ``cifar``.
        priors: The bundled priors of the two kernel sizes, or a set, called dwp; none by default.
        draws: How the bundled priors are drawn from, of :data:`training.starts.fills.FROM_PRIORS`.
        filters: Channels of the convolutions.
        seeds: Number of paired runs.
        first_seed: Seed of the first.
        hold_out: Training images, the last ones, that are kept from training and on which accuracy is measured: for
            choices. By default the test images are, for the figures that are reported.
        test_images: So many evenly spaced images to measure accuracy on at the most.
        batch_size: Images per step.
        lr: Learning rate of Adam, constant.
        marks: Steps at which accuracy is measured; training ends at the last.
    """

    needs: tuple[str, ...] = ("kernels_7x7", "kernels_5x5")
    families: tuple[str, ...] = ()
    name: str = "converge_mnist"
    data: str = "mnist"
    network: str = "mnist"
    priors: tuple[str, ...] = ()
    draws: tuple[str, ...] = field(default=BUNDLED, metadata=FIXED)
    filters: tuple[int, ...] = (32, 128)
    seeds: int = 8
    first_seed: int = 0
    hold_out: int = 0
    test_images: int = 10_000
    batch_size: int = 128
    lr: float = 1e-3
    marks: tuple[int, ...] = (10, 25, 50, 80, 120, 200)

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors)

    @property
    def inits(self) -> tuple[str, ...]:
        """Every initialisation."""
        controls = CONTROLS if self.needs else tuple(init for init in CONTROLS if init not in FROM_KERNELS)
        return controls + (self.draws if self.priors else ()) + self.families

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, batch_size=self.batch_size, test_images=self.test_images)
        check_marks(self.marks)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        done = {(row["init"], row["seed"]): row for row in read_metrics(folder)}
        runs = [(init, seed) for seed in seeds for init in self.inits if (init, seed) not in done]
        job = self._job(context)
        with tqdm(total=len(self.inits) * self.seeds * self.marks[-1], unit="step", desc=self.name) as bar:
            bar.update(len(done) * self.marks[-1])
            for row in run_jobs(job.train, runs, context.workers, bar.update):
                record_metrics(folder, **row)
                done[row["init"], row["seed"]] = row
        return self._summarize(folder / "record", [done[init, seed] for init in self.inits for seed in seeds])

    def _job(self, context: Context) -> "_Job":
        train = context.images(self.data, "train").to(context.device)
        test = context.images(self.data, "test").to(context.device)
        if self.hold_out:
            if not 0 < self.hold_out < len(train[0]):
                raise ValueError(f"hold_out must leave some of {len(train[0])} training images; got {self.hold_out}")
            test = tuple(part[-self.hold_out :] for part in train)
            train = tuple(part[: -self.hold_out] for part in train)
        test = tuple(thin(part, self.test_images) for part in test)
        if self.priors:
            check_inits(self.draws, self.priors, {})
        folders = [context.out / need / PRIOR for need in self.needs[2:]]
        if len(self.needs) == 1 or len(folders) != 2 * len(self.families):
            raise ValueError(
                f"needs names {len(self.needs[:2])} kernels stages and {len(folders)} fits; there are 2 layers, and "
                f"{len(self.families)} families with a pair each"
            )
        pairs = dict(zip(self.families, zip(folders[::2], folders[1::2], strict=True), strict=True))
        kernels = {k: KernelSet.load(context.out / need).train for k, need in zip((7, 5), self.needs[:2], strict=False)}
        return _Job(self, train, test, kernels, pairs)

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        found = {init: torch.tensor([row["accuracy"] for row in rows if row["init"] == init]) for init in self.inits}
        table = [self._table_row(init, column, found) for init in self.inits for column in range(len(self.marks))]
        flat = [
            {"init": row["init"], "seed": row["seed"], "step": step, "accuracy": value}
            for row in rows
            for step, value in zip(self.marks, row["accuracy"], strict=True)
        ]
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", flat)
        title = f"{self.data.upper()}: the paper's ConvNet, by initialisation"
        plot_convergence(found, self.marks, record / f"{self.name}.png", title)
        print_table([row for row in table if row["step"] in (25, 120, self.marks[-1])])
        return {"table": table}

    def _table_row(self, init: str, column: int, found: dict[str, Tensor]) -> dict[str, Any]:
        values = found[init][:, column]
        row: dict[str, Any] = {"init": init, "step": self.marks[column], "accuracy": round(values.mean().item(), 3)}
        row["sd"] = round(values.std().item(), 3) if self.seeds > 1 else ""
        baselines = {"kaiming": BASELINE, "learned": LEARNED}
        for label, baseline in baselines.items() if LEARNED in found else [("kaiming", BASELINE)]:
            over = values - found[baseline][:, column]
            row[f"over_{label}"] = round(over.mean().item(), 3)
            row[f"over_{label}_sd"] = round(over.std().item(), 3) if self.seeds > 1 else ""
            row[f"ahead_of_{label}"] = int((over > 0).sum())
        return row | {"seeds": self.seeds}


@dataclass(frozen=True)
class _Job:
    stage: Converge
    train_data: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    kernels: dict[int, Tensor]
    pairs: dict[str, tuple[Path, Path]]

    def train(self, run: tuple[str, int], progress: Progress) -> dict[str, Any]:
        """Trains one network; returns its accuracies in %."""
        init, seed = run
        stage, (images, labels) = self.stage, self.train_data
        torch.manual_seed(seed)
        network = build(stage.network, stage.filters, int(labels.max()) + 1, tuple(images.shape[1:]))
        self._initialize_(network, init, seed)
        network = network.to(images.device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=stage.lr)
        generator = torch.Generator().manual_seed(seed)
        needed = stage.marks[-1] * stage.batch_size
        order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(-(-needed // len(images)))])
        found = []
        for step in range(1, stage.marks[-1] + 1):
            batch = order[(step - 1) * stage.batch_size : step * stage.batch_size].to(images.device)
            logits = network(images[batch].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(1)
            if step in stage.marks:
                found.append(round(100 * accuracy(network, *self.test), 3))
        return {"init": init, "seed": seed, "accuracy": found}

    def _initialize_(self, network: nn.Module, init: str, seed: int) -> None:
        if init in self.pairs:
            dwp_init.apply_(network, list(self.pairs[init]), seed=seed, noise=not init.endswith("decoder mean"))
        else:
            initialize_(network, init, seed, self.stage.priors, self.kernels)
