"""Features of convolutions that are drawn and then fixed, of networks of several widths (Section 4.2, Fig. 3)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.engine.options import check_counts
from training.engine.records import print_table, read_metrics, record_metrics, write_table
from training.engine.stage import FIXED, Context, Stage
from training.engine.workers import Progress, run_jobs
from training.experiments.paper import LABELS, RANDOM_FEATURES
from training.figures.experiments import plot_scales
from training.networks.loop import accuracy
from training.networks.registry import build
from training.starts.fills import (
    DWP,
    DWP_ORTHOGONAL,
    DWP_OWN,
    FROM_KERNELS,
    KAIMING,
    NOISE,
    NOISE_OWN,
    XAVIER,
    check_inits,
    initialize_,
    learned_kernels,
)
from training.starts.priors import bundled_digests

COMPARED = (DWP, DWP_OWN, DWP_ORTHOGONAL, XAVIER, KAIMING, NOISE, NOISE_OWN)
BATCH = 500  # images whose features are made at once


@dataclass(frozen=True)
class RandomFeatures(Stage):
    """Draws the convolutions of a network of the paper, fixes them and trains the rest.

    Records ``<name>.csv``, ``<name>_runs.csv`` and ``<name>.png``. As the convolutions are fixed, the features of all
    images are made once for each network and kept in memory, in float32: 0.3 GB a worker for MNIST at k = 1, 1.5 GB
    for 60,000 images of the CIFAR network. The networks of one seed and k have the same classifiers at the start, the
    same biases, PyTorch's, and the same order of images.

    Args:
        needs: Stages with learned kernels, one for each kernel size, to start from too; none by default.
        name: Of the record.
        data: Name of the data set.
        network: ``mnist`` or ``cifar``: a network of :data:`training.networks.registry.NETWORKS` of ``features`` and
            ``classifier``.
        filters: Channels of the convolutions at k = 1.
        scales: The scales k of all these numbers.
        priors: The bundled priors, one for each kernel size, or a set.
        inits: Initialisations of :data:`training.starts.fills.INITS`; those from learned kernels come with ``needs``.
        seeds: Number of paired runs.
        first_seed: Seed of the first.
        hold_out: Training images, the last ones, that are kept from training and on which accuracy is measured: for
            choices. By default the test images are, for the figures that are reported.
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Learning rate of Adam at the first step, from where it falls linearly to 0.
        unit_rms: Whether a network's features are divided by one number, their root mean square over the training
            images, so that a learning rate means the same at every scale of the convolutions. Else training from small
            scales, such as Xavier's, is far from its end after some passes.
    """

    name: str = "random_features"
    data: str = "mnist"
    network: str = "mnist"
    filters: tuple[int, ...] = (32, 128)
    scales: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    priors: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    inits: tuple[str, ...] = field(default=COMPARED, metadata=FIXED)
    seeds: int = 10
    first_seed: int = 0
    hold_out: int = 0
    epochs: int = 10
    batch_size: int = 256
    lr: float = 1e-3
    unit_rms: bool = True

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, epochs=self.epochs, batch_size=self.batch_size)
        if not self.scales or min(self.scales) <= 0 or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales must be above 0 and rise, each once; got {self.scales}")
        job = self._job(context)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        wanted = list(product(seeds, self.scales, job.inits))
        done = {(row["seed"], row["k"], row["init"]): row for row in read_metrics(folder)}
        missing = [run for run in wanted if run not in done]
        each = self.epochs + 1  # making the features counts for one
        with tqdm(total=len(wanted) * each, unit="pass", desc=self.name) as bar:
            bar.update((len(wanted) - len(missing)) * each)
            for row in run_jobs(job.train, missing, context.workers, bar.update):
                record_metrics(folder, **row)
                done[row["seed"], row["k"], row["init"]] = row
        return self._summarize(folder / "record", [done[run] for run in wanted])

    def _job(self, context: Context) -> "_Job":
        train = context.images(self.data, "train").to(context.device)
        test = context.images(self.data, "test").to(context.device)
        if self.hold_out:
            if not 0 < self.hold_out < len(train[0]):
                raise ValueError(f"hold_out must leave some of {len(train[0])} training images; got {self.hold_out}")
            test = tuple(part[-self.hold_out :] for part in train)
            train = tuple(part[: -self.hold_out] for part in train)
        kernels = learned_kernels(context.out / need for need in self.needs)
        job = _Job(self, train, test, kernels, self.inits + (FROM_KERNELS if kernels else ()))
        check_inits(job.inits, self.priors, kernels)
        network = job.network(self.scales[0])
        if not isinstance(getattr(network, "features", None), nn.Module) or not hasattr(network, "classifier"):
            raise ValueError(
                f"the network must be of features and classifier, as mnist and cifar; got {self.network!r}"
            )
        return job

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, dict[float, Tensor]] = {init: {} for init in dict.fromkeys(row["init"] for row in rows)}
        for init, k in product(found, self.scales):
            found[init][k] = torch.tensor([row["accuracy"] for row in rows if (row["init"], row["k"]) == (init, k)])
        table = [self._table_row(init, k, found) for init, k in product(found, self.scales)]
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", rows)
        title = f"{self.data.upper()}: random features, {self.seeds} seeds"
        plot_scales(found, RANDOM_FEATURES.get(self.data, {}), record / f"{self.name}.png", title)
        print_table(table)
        return {"table": table}

    def _table_row(self, init: str, k: float, found: dict[str, dict[float, Tensor]]) -> dict[str, Any]:
        values = found[init][k]
        row: dict[str, Any] = {"init": init, "k": k, "accuracy": round(values.mean().item(), 3)}
        row["sd"] = round(values.std().item(), 3) if len(values) > 1 else ""
        for label, baseline in (("xavier", XAVIER), ("kaiming", KAIMING)):
            if baseline in found:
                over = values - found[baseline][k]
                row[f"over_{label}"] = round(over.mean().item(), 3)
                row[f"over_{label}_sd"] = round(over.std().item(), 3) if len(values) > 1 else ""
                row[f"ahead_of_{label}"] = int((over > 0).sum())
        paper = RANDOM_FEATURES.get(self.data, {}).get(LABELS.get(init, ""), {}).get(k, ("", ""))
        return row | {"paper": paper[0], "paper_sd": paper[1], "seeds": len(values)}


@dataclass(frozen=True)
class _Job:
    stage: RandomFeatures
    train_data: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    kernels: dict[int, Tensor]
    inits: tuple[str, ...]

    def network(self, k: float) -> nn.Module:
        """Returns an untrained network of ``k`` times the filters, rounded, one at the least."""
        images, labels = self.train_data
        filters = tuple(max(round(k * count), 1) for count in self.stage.filters)
        return build(self.stage.network, filters, int(labels.max()) + 1, tuple(images.shape[1:]))

    def train(self, run: tuple[int, float, str], progress: Progress) -> dict[str, Any]:
        """Makes the features of one network and trains its classifier; returns its accuracy in %."""
        (seed, k, init), stage = run, self.stage
        (images, labels), (test_images, test_labels) = self.train_data, self.test
        torch.manual_seed(seed)
        network = self.network(k)
        initialize_(network, init, seed, stage.priors, self.kernels)
        network = network.to(images.device, memory_format=torch.channels_last)
        found, test_found = extract(network.features, images), extract(network.features, test_images)
        if stage.unit_rms:
            rms = found.square().mean().sqrt()
            found, test_found = found.div_(rms), test_found.div_(rms)
        progress(1)
        classifier = network.classifier
        optimizer = torch.optim.Adam(classifier.parameters(), lr=stage.lr)
        generator = torch.Generator().manual_seed(seed)
        total = stage.epochs * -(-len(images) // stage.batch_size)
        for step, batch in enumerate(self._batches(generator, progress)):
            batch = batch.to(images.device)
            optimizer.param_groups[0]["lr"] = stage.lr * (1 - step / total)
            loss = F.cross_entropy(classifier(found[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = round(100 * accuracy(classifier, test_found, test_labels), 3)
        return {"init": init, "k": k, "seed": seed, "accuracy": right}

    def _batches(self, generator: torch.Generator, progress: Progress) -> Iterator[Tensor]:
        """Yields the rows of each step's images; every pass goes over all images."""
        for _ in range(self.stage.epochs):
            yield from torch.randperm(len(self.train_data[0]), generator=generator).split(self.stage.batch_size)
            progress(1)


@torch.no_grad()
def extract(features: nn.Module, images: Tensor) -> Tensor:
    """Returns the features ``(n, d)`` of images ``(n, c, h, w)``, made batch by batch."""
    found: Tensor | None = None
    for start in range(0, len(images), BATCH):
        part = features(images[start : start + BATCH].contiguous(memory_format=torch.channels_last))
        found = part.new_empty(len(images), part.shape[1]) if found is None else found
        found[start : start + BATCH] = part
    return found
