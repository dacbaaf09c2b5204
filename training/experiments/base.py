"""What stages share that train networks from several starts on paired seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from training.engine.records import Row, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.images.split import Labelled, hold_out, thin
from training.networks.registry import build
from training.starts.base import Learned, check_starts
from training.starts.learned import LEARNED_HE, LEARNED_OWN, learned_kernels
from training.starts.priors import bundled_digests

Train = Callable[[Any, Progress], list[Row]]


class Parts(NamedTuple):
    """What the runs of a stage share: images and labels, learned kernels, and a folder of other files."""

    train: Labelled
    test: Labelled
    learned: Learned
    folder: Path = Path()


@dataclass(frozen=True)
class PairedRuns(Stage):
    """Trains networks from several starts; the runs of one seed share their data order and all but the convolutions.

    Args:
        needs: Earlier stages that are read.
        name: Base name of the recorded files.
        data: Name of the data set.
        priors: The bundled priors, one for each kernel size, or a set.
        seeds: Number of paired runs.
        first_seed: Seed of the first.
    """

    name: str = "paired_runs"
    data: str = "mnist"
    priors: tuple[str, ...] = ()
    seeds: int = 8
    first_seed: int = 0

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors)

    def all_seeds(self) -> range:
        """Returns the seeds of the paired runs."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every start that is compared: those of ``inits`` and, with ``needs``, those from learned kernels."""
        inits: tuple[str, ...] = getattr(self, "inits", ())
        return inits + ((LEARNED_HE, LEARNED_OWN) if self.needs else ())

    def sweep(
        self,
        folder: Path,
        context: Context,
        train: Train,
        each: int,
        made: Callable[[Row], bool] = lambda row: True,
    ) -> list[Row]:
        """Trains from each of ``arms`` with each seed what is missing; returns the rows, those of one start together.

        Args:
            folder: The stage's folder.
            context: Where it runs.
            train: Makes the row of a pair of start and seed; picklable.
            each: Steps of one run.
            made: As for :class:`training.engine.sweep.Sweep`.
        """
        runs = [(init, seed) for seed in self.all_seeds() for init in self.arms]
        settings: dict[str, Any] = {"total": len(runs), "each": each, "engine": context.engine, "desc": self.name}
        with Sweep(folder, ("init", "seed"), made=made, **settings) as sweep:
            sweep(train, runs)
        return [sweep.done[init, seed] for init in self.arms for seed in self.all_seeds()]

    def read(self, context: Context, held_out: int = 0, test_images: int = 0) -> Parts:
        """Reads the images, see :func:`read_images`, and the learned kernels of ``needs``; checks the starts."""
        learned = learned_kernels(context.out / need for need in self.needs)
        check_starts(self.arms, priors=bool(self.priors), learned=bool(learned))
        return Parts(*read_images(context, self.data, held_out, test_images), learned)

    def record(self, folder: Path, **tables: Sequence[Row]) -> None:
        """Writes tables of record, ``<name>.csv`` and ``<name>_<ending>.csv``; the ending ``table`` is left out."""
        for ending, rows in tables.items():
            path = f"{self.name}.csv" if ending == "table" else f"{self.name}_{ending}.csv"
            write_table(folder / "record" / path, rows)


def network_for(train: Labelled, name: str, filters: tuple[int, ...]) -> nn.Module:
    """Builds an untrained network by name for labelled images."""
    images, labels = train
    _, channels, height, width = images.shape
    return build(name, filters, int(labels.max()) + 1, (channels, height, width))


def read_images(context: Context, data: str, held_out: int = 0, test_images: int = 0) -> tuple[Labelled, Labelled]:
    """Reads what to train on and what to test on.

    Args:
        context: Where it runs.
        data: Name of the data set.
        held_out: Number of training images, the last ones, that replace the test images.
        test_images: Maximum number of images to test on, evenly spaced; all if 0.
    """
    train, test = (context.images(data, split).to(context.device) for split in ("train", "test"))
    train, (images, labels) = hold_out(train, test, held_out)
    most = test_images or len(images)
    return train, (thin(images, most), thin(labels, most))
