"""Convolutions that are drawn and frozen, with a Bayesian linear read-out from few labels: yardsticks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.engine.ledger import kept_runs
from training.engine.options import check_counts
from training.engine.records import Row, print_table
from training.engine.stage import FIXED, Context
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.base import PairedRuns, read_images
from training.experiments.paired import half_width, mean_sd, shown
from training.experiments.readout import centred_products, fit_readout
from training.experiments.scattering import Scattering
from training.images.split import Labelled, stratified
from training.starts.base import initialize_
from training.starts.controls import NOISE as WHITE_NOISE
from training.starts.priors import DWP, bundled_digests

BANK_OF_SPLIT = ("split", "source", "filters", "threshold", "grids")
IMAGES_AT_ONCE = 250  # images whose features are in memory at a time
BANK_KERNEL_SIZES = (7, 5)
NOISE_BANK, PRIOR_BANK, KEY_FILTER_BANK = "white noise", "prior", "key filters"


class Source(NamedTuple):
    """Where frozen kernels come from: a start, and the bundled priors that it draws from."""

    start: str
    priors: tuple[str, ...] = ()


BANK_SOURCES = {
    NOISE_BANK: Source(WHITE_NOISE),
    PRIOR_BANK: Source(DWP, ("notmnist-7x7", "notmnist-5x5")),
    KEY_FILTER_BANK: Source(DWP, ("natural-dw7x7",)),  # of 7×7 alone, so for banks of one layer
}
SCATTERING = "scattering"
BY_EVIDENCE = {"filters": "by evidence", "threshold": "", "grids": ""}  # the bank of greatest evidence, in tables
Bank = tuple[str, tuple[int, ...], float, tuple[int, ...]]  # source, filters, threshold, grids


@dataclass(frozen=True)
class FrozenReadout(PairedRuns):
    """Draws banks of filters, freezes them and fits a read-out in closed form to small stratified sets.

    A bank is one layer of 7×7 kernels, or that and one of 5×5 kernels. The responses x of a layer are divided by their
    root mean square over the images of the small set, and both max(x - t, 0) and max(-x - t, 0) go on, t the threshold:
    to the next layer by averages of 2×2, and to the read-out by averages over the cells of grids. Nothing is learned
    but the read-out, a Bayesian linear regression on the classes as one-hot vectors, with the strength of
    regularisation by evidence. The bank ``by evidence`` is in each split the one whose read-out has the greatest
    evidence among all banks of its source. Test images have no say. Features of the scattering transform are read out
    in the same way.

    Splits are paired: each has its own training images and draws, the same images for every bank, and larger sets
    contain the smaller ones. Records ``<name>.csv`` and ``<name>_runs.csv``; its runs are kept too.

    Args:
        data: Name of a data set of grey images.
        sources: Names of :data:`BANK_SOURCES`.
        filters: Numbers of filters by layer, of each bank.
        thresholds: Each t, in units of the root mean square of the responses.
        grids: Sizes of the pooling grids of each bank; several are several scales.
        scattering: J and L of each scattering transform, see :class:`training.experiments.scattering.Scattering`, which
            needs kymatio; none by default.
        sizes: Sizes of the training sets.
        test_images: Maximum number of test images, evenly spaced.
    """

    keeps_runs: ClassVar[bool] = True

    name: str = "frozen_readout"
    sources: tuple[str, ...] = field(default=tuple(BANK_SOURCES), metadata=FIXED)
    filters: tuple[tuple[int, ...], ...] = ((64,), (256,), (1024,))
    thresholds: tuple[float, ...] = (0.0,)
    grids: tuple[tuple[int, ...], ...] = ((4,),)
    scattering: tuple[tuple[int, int], ...] = ()
    sizes: tuple[int, ...] = (50, 100, 200, 500, 1000)
    seeds: int = 10
    test_images: int = 10_000

    def other_inputs(self) -> dict[str, Any]:
        known = [BANK_SOURCES[source] for source in self.sources if source in BANK_SOURCES]
        return bundled_digests(*(name for source in known for name in source.priors))

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, test_images=self.test_images)
        if not self.sources or set(self.sources) - set(BANK_SOURCES) or len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources must be some of {', '.join(BANK_SOURCES)}, each once; got {self.sources}")
        if not self.banks():
            raise ValueError(f"filters must be numbers of one or two layers, and grids 1 or more; got {self.filters}")
        runs = [(split, *described(bank)) for split in self.all_seeds() for bank in self.banks()]
        banks = {described(bank): bank for bank in self.banks()}
        job = partial(self.measure, read_images(context, self.data, test_images=self.test_images), banks)
        settings: dict[str, Any] = {"total": len(runs), "unit": "bank", "engine": context.engine, "desc": self.name}
        with kept_runs(self, folder, context, BANK_OF_SPLIT), Sweep(folder, BANK_OF_SPLIT, **settings) as sweep:
            rows = [one for row in sweep(job, runs) for one in _by_size(row)]
        rows += by_evidence(rows)
        table = readout_table(rows)
        self.record(folder, table=table, runs=rows)
        print_table(table)
        return {"table": table}

    def banks(self) -> list[Bank]:
        """Returns every bank; the key filters, of 7×7 alone, have those of one layer only. Scattering comes first."""
        found = product(self.sources, self.filters, self.thresholds, self.grids)
        drawn = [bank for bank in found if len(bank[1]) == 1 or (bank[0] != KEY_FILTER_BANK and len(bank[1]) == 2)]
        return [(SCATTERING, each, 0.0, ()) for each in self.scattering] + drawn

    def measure(
        self, images: tuple[Labelled, Labelled], banks: dict[Any, Bank], run: tuple[Any, ...], progress: Progress
    ) -> list[Row]:
        """Draws one bank, and reads it out from sets of every size; returns a row with a list of results by size.

        A result does not depend on the other sizes: the bank is calibrated on the images of its own set alone.
        """
        split, *key = run
        train, test = images
        results = []
        for size in self.sizes:
            rows = stratified(train[1], size, split)
            own = train[0][rows], train[1][rows]
            results.append({"size": size, **read_out(frozen_bank(banks[tuple(key)], split, own[0]), own, test)})
        progress(1)
        return [dict(zip(BANK_OF_SPLIT, run, strict=True)) | {"results": results}]


def read_out(bank: nn.Module, own: Labelled, test: Labelled) -> Row:
    """Fits a read-out of a bank's features to labelled images, and tests it; accuracy in %, log evidence in nats."""
    features = torch.cat([bank(part) for part in own[0].split(IMAGES_AT_ONCE)])
    cross = torch.cat([bank(part) @ features.T for part in test[0].split(IMAGES_AT_ONCE)])
    gram, others = centred_products(features.double() @ features.double().T, cross)
    one_hot = F.one_hot(own[1]).double()
    readout = fit_readout(gram, one_hot - one_hot.mean(0))
    right = (others.double() @ readout.dual).argmax(1) == test[1]
    return {
        "features": features.shape[1],
        "accuracy": round(100 * right.double().mean().item(), 3),
        "log_evidence": round(readout.log_evidence, 2),
        "strength": readout.strength,
    }


class FrozenBank(nn.Module):
    """Maps images ``(n, 1, h, w)`` to features ``(n, d)`` by fixed convolutions; see :class:`FrozenReadout`.

    Args:
        filters: Numbers of filters by layer.
        threshold: In units of the root mean square of the responses.
        grids: Sizes of the pooling grids.
    """

    rms: Tensor

    def __init__(self, filters: Sequence[int], threshold: float, grids: Sequence[int]) -> None:
        super().__init__()
        before = (1, *(2 * count for count in filters))
        layers = zip(before, filters, BANK_KERNEL_SIZES, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(inputs, count, size, bias=False) for inputs, count, size in layers)
        self.threshold, self.grids = threshold, tuple(grids)
        self.register_buffer("rms", torch.ones(len(filters)))

    @torch.no_grad()
    def calibrate_(self, images: Tensor) -> "FrozenBank":
        """Sets the root mean square of each layer's responses to that over images ``(n, 1, h, w)``."""
        for number in range(len(self.layers)):
            squares = [self._responses(part, number).square().mean() for part in images.split(IMAGES_AT_ONCE)]
            self.rms[number] = torch.stack(squares).mean().sqrt()
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        last = self._split(images, len(self.layers) - 1)
        return torch.cat([F.adaptive_avg_pool2d(last, grid).flatten(1) for grid in self.grids], 1)

    def _responses(self, images: Tensor, number: int) -> Tensor:
        inputs = F.avg_pool2d(self._split(images, number - 1), 2) if number else images
        responses: Tensor = self.layers[number](inputs)
        return responses

    def _split(self, images: Tensor, number: int) -> Tensor:
        """Returns the positive and the negative responses of a layer, beyond the threshold."""
        responses = self._responses(images, number) / self.rms[number]
        return torch.cat([F.relu(responses - self.threshold), F.relu(-responses - self.threshold)], 1)


def frozen_bank(bank: Bank, seed: int, images: Tensor) -> FrozenBank | Scattering:
    """Draws a bank, with responses of unit root mean square on images ``(n, 1, h, w)``; scattering is not drawn."""
    source, filters, threshold, grids = bank
    if source == SCATTERING:
        return Scattering((images.shape[2], images.shape[3]), *filters).calibrate_(images)
    start, priors = BANK_SOURCES[source]
    network = FrozenBank(filters, threshold, grids)
    initialize_(network, start, seed, priors=priors, strict=True)
    return network.to(images.device).calibrate_(images)


def described(bank: Bank) -> tuple[str, str, float, str]:
    """Returns a bank as it stands in tables, such as ``("white noise", "64/256", 0.0, "4+2")``."""
    source, filters, threshold, grids = bank
    if source == SCATTERING:
        return source, "J={} L={}".format(*filters), threshold, ""
    return source, "/".join(map(str, filters)), threshold, "+".join(map(str, grids))


def by_evidence(rows: Sequence[Row]) -> list[Row]:
    """Returns for each split, size and source the row of greatest evidence, as that of the bank ``by evidence``."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = (row["split"], row["size"], row["source"])
        if key not in best or row["log_evidence"] > best[key]["log_evidence"]:
            best[key] = row
    return [row | BY_EVIDENCE | {"features": ""} for row in best.values()]


def readout_table(rows: Sequence[Row]) -> list[Row]:
    """Averages over splits, with half widths of 95 % intervals of the means and of the paired leads.

    A lead is over white noise in a bank of the same kind, and over the scattering transform of greatest evidence.
    """
    found: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("filters", "threshold", "grids", "size", "source"))
        found.setdefault(key, {})[row["split"]] = row
    table = []
    for (*bank, size, source), runs in found.items():
        row = dict(zip(("filters", "threshold", "grids"), bank, strict=True)) | {"size": size, "source": source}
        accuracy = _accuracies(runs)
        row |= mean_sd("accuracy", accuracy) | {"half_width": shown(half_width(accuracy), 3)}
        row |= _lead("over_noise", accuracy, found.get((*bank, size, NOISE_BANK)))
        row |= _lead("over_scattering", accuracy, found.get((*BY_EVIDENCE.values(), size, SCATTERING)))
        table.append(row | {"splits": len(runs)})
    return table


def _lead(name: str, accuracy: Tensor, other: dict[int, Row] | None) -> Row:
    over = accuracy[:0] if other is None else accuracy - _accuracies(other)
    return {name: shown(over.mean().item(), 3), f"{name}_half_width": shown(half_width(over), 3)}


def _accuracies(runs: dict[int, Row]) -> Tensor:
    return torch.tensor([runs[split]["accuracy"] for split in sorted(runs)], dtype=torch.float64)


def _by_size(row: Row) -> list[Row]:
    """Splits a bank's row into one for each number of labels."""
    common = {key: value for key, value in row.items() if key != "results"}
    return [common | result for result in row["results"]]
