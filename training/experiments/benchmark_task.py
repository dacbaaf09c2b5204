"""A task of the benchmark: a network, its size, data and amount of labels, and how one network is trained on it."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from training.engine.ledger import ledger_file, read_runs, take_runs
from training.engine.options import check_counts
from training.engine.records import RESULTS, Row
from training.engine.stage import GROWS, Context, Stage, stage_config
from training.engine.workers import Progress
from training.experiments.trials import Trial, quasi_random_trials
from training.images.augment import PADDING, moved
from training.images.sets import kind_of_images
from training.images.split import Labelled, parts, stratified, thin
from training.networks.loop import Step, batches, scores, train
from training.networks.registry import build
from training.starts.base import initialize_, spatial_convolutions
from training.starts.source import source_of

WARM_UP = 0.1  # share of the steps over which the learning rate rises
SEEN = 5000  # training images that a start may look at, as many as airbench takes
RUN = ("setting", "source", "start", "seed", "trial", "choosing")  # what identifies a run


class Pools(NamedTuple):
    """Images and labels; the channels have mean 0 and variance 1 over all images of the training split.

    Args:
        train: To train on.
        held_out: To choose settings by; never trained on.
        test: To test on; those that join from the training images come last, in random order.
        data_root: The folder with the data sets, and with the files that some starts draw from.
    """

    train: Labelled
    held_out: Labelled
    test: Labelled
    data_root: Path

    @property
    def classes(self) -> int:
        """Number of classes, counting those that no training image is left of."""
        return 1 + max(int(labels.max()) for _, labels in (self.train, self.held_out, self.test))


@dataclass(frozen=True)
class BenchmarkTask(Stage):
    """What the runs of a task have in common; subclasses say which runs there are.

    Args:
        name: Base name of the recorded files.
        network: A network by name and arguments, see :func:`training.networks.registry.build`.
        filters: Its channels; none for networks of timm.
        data: Name of the data set, with a slice of its classes if any.
        each: Labelled images of a class to train on, drawn by the seed; all if 0.
        frozen: Whether the spatial convolutions stay as they start; their biases too.
        trials: Settings of AdamW to choose from, see :func:`training.experiments.trials.quasi_random_trials`.
        hold_out: Training images to choose by, as many of every class or one more.
        more_test: Training images that join the test images, as many of every class or one more; never trained on.
        batch_size: Images per step; all of them where there are fewer.
        steps: Steps of a run. The learning rate rises for a tenth of them and falls linearly to 0.
        marks: Number of times that the curve is measured, evenly spaced; the last is after the last step.
        curve_images: Maximum number of test images of the curve, evenly spaced.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        priors: The set that the starts from priors draw from.
        seeds: Number of paired runs.
    """

    keeps_runs: ClassVar[bool] = True

    name: str = "bench"
    network: str = "resnet"
    filters: tuple[int, ...] = (32, 64, 128)
    data: str = "cifar10"
    each: int = 0
    frozen: bool = False
    trials: int = 5
    hold_out: int = 5000
    more_test: int = 0
    batch_size: int = 32
    steps: int = 1000
    marks: int = 6
    curve_images: int = 1000
    precision: str = "float32"
    priors: tuple[str, ...] = ("natural",)
    seeds: int = field(default=8, metadata=GROWS)

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def steps_of_marks(self) -> tuple[int, ...]:
        """Steps after which the curve is measured."""
        return tuple(self.steps * (mark + 1) // self.marks for mark in range(self.marks))

    @property
    def settings(self) -> tuple[Trial, ...]:
        """The settings of AdamW to choose from."""
        return quasi_random_trials(self.trials)

    def check(self) -> None:
        """Raises ``ValueError`` if a field is out of range."""
        counts = {"seeds": self.seeds, "hold_out": self.hold_out, "batch_size": self.batch_size, "marks": self.marks}
        check_counts(**counts, steps=self.steps, curve_images=self.curve_images, trials=self.trials)
        for name, count in {"each": self.each, "more_test": self.more_test}.items():
            if count < 0:
                raise ValueError(f"{name} must be 0 or more; got {count}")
        if self.marks > self.steps:
            raise ValueError(f"marks must be at most the number of steps, {self.steps}; got {self.marks}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {self.precision!r}")

    @property
    def digest(self) -> str:
        """A digest of the fields that all runs depend on, which is known without data."""
        return _digest([self._fields(), self.settings, WARM_UP])

    def setting(self, context: Context, pools: Pools) -> str:
        """Returns a digest of what all runs of the task depend on, but for the code.

        Of the network these are the names and shapes of its weights too, because timm may change it; of the machine it
        is the kind of its device, because seconds on an accelerator are others.
        """
        data = stage_config(self.name, self, {}, context)["data"]
        network = self.untrained(pools, 0).state_dict()
        shapes = {key: tuple(value.shape) for key, value in network.items()}
        kind = [] if context.device.type == "cpu" else [context.device.type]
        return _digest([self._fields(), data, self.settings, WARM_UP, shapes, *kind])

    def _fields(self) -> dict[str, Any]:
        """Its fields but for those that let it grow, and those that each run names or that only name it."""
        kept = (each.name for each in dataclasses.fields(self) if each.metadata != GROWS)
        return {name: getattr(self, name) for name in kept if name not in ("name", "priors", "trials")}

    def take_runs(
        self, folder: Path, context: Context, setting: str, of_now: Callable[[Row], bool], key: Sequence[str]
    ) -> None:
        """Enters the runs of record that the folder lacks, if that is asked for.

        Args:
            folder: The stage's folder.
            context: The context of the run.
            setting: The digest of :meth:`setting`.
            of_now: Whether a run counts.
            key: Names of the columns that identify a run.

        Raises:
            ValueError: There are runs of these very fields on record, and all were made otherwise, such as on another
                kind of device. They would not count, and ``--record`` would replace them.
        """
        if not context.from_record:
            return
        path = RESULTS / ledger_file(self.name)
        there = [row for row in read_runs(path) if row.get("task", self.digest) == self.digest]
        if there and all(row["setting"] != setting for row in there):
            raise ValueError(
                f"all {len(there)} runs in {path} were made otherwise than they would be now: on another kind of "
                "device, from other data, or with another version of the network; leave out --from-record and "
                "--record, or remove the file to begin again"
            )
        taken = take_runs(path, folder, of_now, lambda row: tuple(map(row.get, key)))
        print(f"{self.name}: {taken} runs are taken from the results of record")

    def source(self, start: str, folder: Path | None) -> str:
        """Returns a digest of what a start draws from in the network, see :func:`training.starts.source.source_of`."""
        return source_of(
            start, self.priors, folder, partial(build, self.network, self.filters, *kind_of_images(self.data))
        )

    def pools(self, context: Context) -> Pools:
        """Reads the images, standardises their channels, and splits the training images at random."""
        read = (context.images(self.data, split).to(context.device) for split in ("train", "test"))
        (images, labels), (others, their_labels) = read
        mean, scale = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        images, others = images.sub_(mean).div_(scale), others.sub_(mean).div_(scale)
        left = len(labels) - self.hold_out - self.more_test
        if left < 1:
            raise ValueError(
                f"hold_out and more_test must leave some of the {len(labels)} training images of {self.data}; got "
                f"{self.hold_out} and {self.more_test}: lower one"
            )
        held_out, joining, rest = parts(labels, (self.hold_out, self.more_test, left))
        # parts come class by class in turn, and an evenly spaced part of those would lack classes
        joining = joining[torch.randperm(len(joining), generator=torch.Generator().manual_seed(0)).to(joining.device)]
        test = torch.cat([others, images[joining]]), torch.cat([their_labels, labels[joining]])
        return Pools((images[rest], labels[rest]), (images[held_out], labels[held_out]), test, context.data_root)

    def begin(self, pools: Pools, start: str, seed: int) -> tuple[nn.Module, float, float]:
        """Returns a network from a start, on the CPU; CPU seconds until it is ready; and the share that was drawn."""
        seen = pools.train[0][self.places(pools, seed)[:SEEN]].cpu()
        clock = _clock(torch.device("cpu"))
        network = self.untrained(pools, seed)
        sources: dict[str, Any] = {"priors": self.priors, "batch": seen, "folder": pools.data_root}
        sources["again"] = partial(self.untrained, pools)
        drawn = initialize_(network, start, seed, **sources)
        return network, clock(), drawn

    def untrained(self, pools: Pools, seed: int) -> nn.Module:
        """Returns the network as its author initialises it, on the CPU."""
        channels, height, width = pools.train[0].shape[1:]
        torch.manual_seed(seed)
        return build(self.network, self.filters, pools.classes, (channels, height, width))

    def places(self, pools: Pools, seed: int) -> Tensor:
        """Returns the images to train on, by number: all, or as many of every class, drawn by the seed."""
        labels = pools.train[1].cpu()
        few = stratified(labels, self.each * len(labels.unique()), seed) if self.each else torch.arange(len(labels))
        return few[torch.randperm(len(few), generator=torch.Generator().manual_seed(seed))]

    def batches(self, pools: Pools, seed: int) -> Tensor:
        """Returns each step's images ``(steps, batch, 4)``: number, shifts down and right, and whether flipped."""
        places, generator = self.places(pools, seed), torch.Generator().manual_seed(seed)
        size = min(self.batch_size, len(places))
        order = places[batches(len(places), size, self.steps, generator)].view(-1, 1)
        shifts = torch.randint(2 * PADDING + 1, (len(order), 2), generator=generator)
        flips = torch.randint(2, (len(order), 1), generator=generator)
        return torch.cat([order, shifts, flips], dim=1).view(self.steps, size, 4)

    def train_one(
        self, pools: Pools, start: str, seed: int, trial: int, progress: Progress, *, curve: bool
    ) -> tuple[nn.Module, Row]:
        """Trains one network; returns it, and the seconds, the share that was drawn and, if asked for, the curve."""
        images, labels = pools.train
        network, init_s, drawn = self.begin(pools, start, seed)
        network = network.to(images.device).to(memory_format=torch.channels_last)
        for layer in spatial_convolutions(network).values():
            layer.requires_grad_(not self.frozen)
        rate, decay = self.settings[trial]
        optimizer = _adamw(network, decay, images.device)
        part = thin(pools.test[0], self.curve_images), thin(pools.test[1], self.curve_images)
        measuring = 0.0

        def look_up(batch: Tensor) -> Labelled:
            return moved(images[batch[:, 0]], batch[:, 1:3], batch[:, 3]), labels[batch[:, 0]]

        def measure(_: int) -> tuple[float, float]:
            nonlocal measuring
            until = clock()
            found = self.scores(network, part)
            measuring += clock() - until
            return found

        step = Step(network, optimizer, look_up, images.device, self.precision)
        marks = self.steps_of_marks if curve else ()
        order = self.batches(pools, seed)
        clock = _clock(images.device)
        found = train(step, order, rate, decay=True, warm_up=WARM_UP, progress=progress, marks=marks, measure=measure)
        seconds = clock() - measuring
        row: Row = {"init_s": round(init_s, 4), "train_s": round(seconds, 3), "drawn": round(drawn, 4)}
        if curve:
            row |= {"curve": [accuracy for accuracy, _ in found], "curve_loss": [loss for _, loss in found]}
        return network, row

    def scores(self, network: nn.Module, judged_by: Labelled) -> tuple[float, float]:
        """Returns accuracy in % and log loss in nats of a network in evaluation mode."""
        correct, nats = scores(network, *judged_by, self.precision)
        return round(100 * correct.float().mean().item(), 3), round(nats.cpu().double().mean().item(), 5)


def _digest(values: object) -> str:
    """12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _clock(device: torch.device) -> Callable[[], float]:
    """Starts a clock of seconds: of this process's CPU time, or on an accelerator of time until its work is done."""
    if device.type == "cpu":
        start = time.process_time()
        return lambda: time.process_time() - start
    torch.accelerator.synchronize(device)
    began = time.perf_counter()

    def seconds() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter() - began

    return seconds


def _adamw(network: nn.Module, decay: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW whose decay leaves out what has one dimension: biases, and scales of normalisation."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each.dim() > 1], "weight_decay": decay},
        {"params": [each for each in trained if each.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], fused=True, capturable=device.type == "cuda"
    )
