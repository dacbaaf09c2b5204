"""A task of the benchmark as the verdict sees it: what it is of, and its table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import nn

from training.networks.registry import NETWORKS, TIMM, build
from training.starts.base import kind_of, spatial_convolutions

Role = Literal["choose", "confirm"]


@dataclass(frozen=True)
class Task:
    """A task of the benchmark and its table.

    Args:
        name: Base name of its files.
        role: Whether it may choose a default, or is kept to confirm one.
        network: A network by name and arguments.
        data: Name of the data set, with a slice of its classes if any.
        each: Labelled images of a class; all if 0.
        frozen: Whether the spatial convolutions stay as they start.
        steps_of_marks: Steps after which the curves are measured.
        kind: Kind of the network, see :func:`network_kind`.
        table: Rows of :func:`training.experiments.benchmark_table.task_table`, or those read from their file; none if
            it was not run.
    """

    name: str
    role: Role
    network: str
    data: str
    each: int
    frozen: bool
    steps_of_marks: tuple[int, ...]
    kind: str
    table: Sequence[Mapping[str, Any]] = ()

    @property
    def part(self) -> str:
        """The part of the benchmark that it belongs to."""
        if self.frozen:
            return "frozen kernels"
        return "few labels" if self.each else "all labels"

    @property
    def family(self) -> str:
        """The family of the network, without its size and its edition."""
        called = self.network.partition("(")[0].removeprefix(TIMM)
        ours = {_letters(name) for name in NETWORKS}
        return next((family for family in sorted(ours) if family in called), _letters(called))

    @property
    def classes(self) -> tuple[str, range]:
        """The data set, and the classes of it that are used."""
        sliced = re.fullmatch(r"(.+)\[(\d*):(\d*)\]", self.data)
        if not sliced:
            return self.data, range(_ALL)
        return sliced[1], range(int(sliced[2] or 0), int(sliced[3] or _ALL))


_ALL = 10**6  # classes


def _letters(name: str) -> str:
    """The letters that a name begins with, without a ``v`` in front of a number."""
    found = re.match(r"[a-z]+?(?=v?\d|[^a-z]|$)", name)
    return found[0] if found else name


def task_of(stage: Any, table: Sequence[Mapping[str, Any]] = ()) -> Task:
    """Makes the record of a task from the fields of its stage, and its table.

    Args:
        stage: The stage of :class:`training.experiments.benchmark.Benchmark`.
        table: Its table; empty if it was not run.
    """
    given = {each.name: getattr(stage, each.name) for each in fields(Task) if each.name not in ("kind", "table")}
    network = build(stage.network, stage.filters, 10, (3, 32, 32))
    return Task(**given, kind=network_kind(network), table=table)


def network_kind(network: nn.Module) -> str:
    """Returns the kind of a network: whether it is mostly depthwise, and whether it normalises."""
    kinds = [kind_of(layer) for layer in spatial_convolutions(network).values()]
    normalised = any("norm" in type(module).__name__.lower() for module in network.modules())
    return f"{max(kinds, key=kinds.count)}, {'normalised' if normalised else 'without normalisation'}"
