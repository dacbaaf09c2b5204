"""A race on handwritten digits: a network trained from its own start and from a prior, with a curve that grows."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import dwp_init
from space.looks import timm_model
from training.figures.style import plot_band
from training.figures.svg import ACCENT, FAINTER, bare, svg_of, web_ink
from training.networks.loop import Step, accuracy, batches, train

FROM_OWN, FROM_PRIOR = "the model's own start", "the prior"
PER_CLASS, TESTED, DIGIT_SIDE = 50, 300, 32  # training images of a class, test images, and pixels of their side
BATCH, LR, WEIGHT_DECAY = 32, 1e-3, 0.05
_EVERY, _MOST, _CORES = 10, 4000, 2  # steps between two marks, steps of a race, and networks that train at a time
_AVERAGED = 5  # training images of which normalisation averages one
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RaceState:
    """How far a race is.

    Args:
        steps: Steps after which networks were tested; none while the networks are built.
        accuracies: For each start its test accuracy in %, ``(seeds, marks)``.
        seconds: Since the networks were built.
        how: Whether it runs, has reached its end, or was stopped.
    """

    steps: tuple[int, ...]
    accuracies: dict[str, Tensor]
    seconds: float
    how: Literal["Running", "Finished", "Stopped"] = "Running"


@dataclass(frozen=True)
class Race:
    """Trains a network from both starts and several seeds, in turns of a few steps, until the time is over.

    Both starts of a seed have the same other weights and the same batches.

    Args:
        architecture: A name of timm.
        prior: A bundled prior or a set.
        seeds: Networks for each start, 2 or more.
        seconds: Time for all of them together, from when they are built.
    """

    architecture: str
    prior: str
    seeds: int = 2
    seconds: float = 120.0

    def run(self, stop: Event | None = None) -> Iterator[RaceState]:
        """Yields a state without steps while the networks are built, and the state after each turn.

        The last one says whether the race reached its end or was stopped. Both end it also within a turn, after the
        step that each network is in.

        Args:
            stop: Ends the race when it is set.

        Raises:
            ValueError: There are too few seeds, the networks cannot be built or do not take the images, or the prior
                reaches no layer.
        """
        if self.seeds < 2:
            raise ValueError(f"a band takes 2 seeds or more; got {self.seeds}")
        stop = stop or Event()
        empty = torch.empty(self.seeds, 0)
        state = RaceState((), {FROM_PRIOR: empty, FROM_OWN: empty}, 0.0)
        yield state
        try:
            for state in self._turns(self._built(stop), stop):
                yield state
            yield replace(state, how="Finished")
        except _EndedError as ended:
            yield replace(state, how=ended.how)

    def _built(self, stop: Event) -> list["_Runner"]:
        """The networks of all seeds, those of the prior at even places."""
        digits, runners = Digits.load(), list[_Runner]()
        for seed in range(self.seeds):
            _Limit(stop).check()
            runners += self._runners(seed, digits)
        return runners

    def _turns(self, runners: Sequence["_Runner"], stop: Event) -> Iterator[RaceState]:
        start, marks = time.perf_counter(), list[tuple[float, ...]]()
        limit = _Limit(stop, start + self.seconds)
        with ThreadPoolExecutor(_CORES) as pool:
            for turn in range(0, _MOST, _EVERY):
                marks.append(tuple(pool.map(lambda runner, place=turn: runner.advance(place, limit), runners)))
                found = torch.tensor(marks).view(-1, self.seeds, 2).movedim(0, 2)  # (seeds, starts, marks)
                steps = tuple(range(_EVERY, turn + _EVERY + 1, _EVERY))
                accuracies = {FROM_PRIOR: found[:, 0], FROM_OWN: found[:, 1]}
                yield RaceState(steps, accuracies, time.perf_counter() - start)

    def _runners(self, seed: int, digits: "Digits") -> tuple["_Runner", "_Runner"]:
        """The two networks of a seed, first that from the prior."""
        own = timm_model(self.architecture, seed, networks=2 * self.seeds, num_classes=10, in_chans=1)
        drawn = copy.deepcopy(own)
        dwp_init.apply_(drawn, self.prior, seed=seed)
        digits.check(own, self.architecture)
        order = batches(len(digits.labels), BATCH, _MOST, torch.Generator().manual_seed(seed))
        return _Runner.of(drawn, digits, order), _Runner.of(own, digits, order)


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits: images ``(n, 1, 32, 32)``, enlarged from 8×8, of zero mean and unit variance."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls) -> "Digits":
        """Takes 50 images of each class for training and some others for tests, the same in every race."""
        bunch: Any = load_digits()
        images = torch.tensor(bunch.images, dtype=torch.float32)[:, None]
        images = F.interpolate(images, size=(DIGIT_SIDE, DIGIT_SIDE), mode="bilinear", align_corners=False)
        images, labels = (images - images.mean()) / images.std(), torch.tensor(bunch.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        picked = torch.cat([order[labels[order] == digit][:PER_CLASS] for digit in range(10)])
        others = order[~torch.isin(order, picked)][:TESTED]
        return cls(images[picked], labels[picked], images[others], labels[others])

    def check(self, model: nn.Module, name: str) -> None:
        """Raises ``ValueError`` if a model does not take these images."""
        try:
            with torch.no_grad():
                model(self.images[:BATCH])
        except Exception as error:
            message = (
                f"{name} does not take images of {DIGIT_SIDE}×{DIGIT_SIDE} pixels: {type(error).__name__}: {error}"
            )
            raise ValueError(f"{message}; race another, such as resnet18") from error


@dataclass(frozen=True)
class _Runner:
    """A network in training, and the images of each step."""

    step: Step
    order: Tensor
    digits: Digits

    @classmethod
    def of(cls, model: nn.Module, digits: Digits, order: Tensor) -> "_Runner":
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        step = Step(model.train(), optimizer, lambda batch: (digits.images[batch], digits.labels[batch]), _CPU)
        return cls(step, order, digits)

    def advance(self, place: int, limit: "_Limit") -> float:
        """Takes the next few steps, unless the race ends, and returns the test accuracy in %.

        Batch normalisation is tested with averages over training images, because its running averages lag far behind
        the weights in the first steps, in which they would decide the race.
        """
        limit.check()
        train(self.step, self.order[place : place + _EVERY], LR, progress=lambda _: limit.check())
        network = copy.deepcopy(self.step.network)
        update_bn([self.digits.images[::_AVERAGED]], network)
        return 100 * accuracy(network, self.digits.test_images, self.digits.test_labels)


class _EndedError(Exception):
    """The race ends within a turn.

    Args:
        how: The last state's ``how``.
    """

    def __init__(self, how: Literal["Finished", "Stopped"]) -> None:
        super().__init__(how)
        self.how: Literal["Finished", "Stopped"] = how


@dataclass(frozen=True)
class _Limit:
    """What ends a race: it is stopped, or its time is over.

    Args:
        stop: Set when it is stopped.
        time: When its time is over, by ``time.perf_counter``.
    """

    stop: Event
    time: float = math.inf

    def check(self) -> None:
        """Raises ``_EndedError`` if the race is over."""
        if self.stop.is_set():
            raise _EndedError("Stopped")
        if time.perf_counter() >= self.time:
            raise _EndedError("Finished")


def race_svg(state: RaceState) -> str:
    """Draws the mean accuracy of each start over the steps, with a band of one standard deviation over seeds."""
    with web_ink():
        figure = Figure(figsize=(6, 3.4))
        axes = figure.subplots()
        axes.set(ylim=(0, 101), xlabel="steps", ylabel="test accuracy, %")
        if state.steps:
            for name, colour in ((FROM_PRIOR, ACCENT), (FROM_OWN, FAINTER)):
                plot_band(axes, state.steps, state.accuracies[name], name, colour, linewidth=1.8)
            axes.legend(frameon=False, loc="lower right")
        bare(axes)
        done = state.steps[-1] if state.steps else 0
        return svg_of(figure, f"Test accuracy after {done} steps, from the prior and from the own start")


def verdict_text(state: RaceState) -> str:
    """Says in words how the race stands."""
    first, last = state.accuracies[FROM_PRIOR], state.accuracies[FROM_OWN]
    if not state.steps:
        how = {"Running": "Building", "Stopped": "Stopped while building", "Finished": "No time was left for"}[
            state.how
        ]
        way_out = ": allow more seconds, or choose a smaller network" if state.how == "Finished" else ""
        return f"{how} {2 * len(first)} networks; they are first tested after {_EVERY} steps of each{way_out}."
    area, end = (first - last).mean(1), (first - last)[:, -1]
    ahead = f"{int((area > 0).sum())} of {len(area)} seeds"
    return (
        f"{state.how} after {state.steps[-1]} steps of each network and {state.seconds:.0f} s. "
        f"Mean over the whole curve: {area.mean():+.1f} points for the prior, ahead in {ahead}; "
        f"now {end.mean():+.1f} points."
    )
