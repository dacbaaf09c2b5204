"""Comparisons of two starts in the benchmark's tasks, and what they say of the parts of ``natural``."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import dwp_init
from dwp_init.convolutions import find_layers
from training.engine.records import Row
from training.experiments.benchmark_task import BenchmarkTask
from training.experiments.paired import LEVEL, holm
from training.images.sets import kind_of_images
from training.networks.registry import build
from training.publish.benchmark_record import OnRecord
from training.starts.controls import DIRAC, OTHER_DRAWS, OWN
from training.starts.gaussians import GAUSSIAN_BY_DEPTH
from training.starts.natural import (
    DENSE_DRAWN,
    NATURAL,
    NATURAL_NOISE,
    NATURAL_V1,
    NOISE_RESPONSE,
    V1_FAN_IN,
    V1_KEEP,
    V1_MEANS,
)
from training.starts.trained import MASTER_FILTERS
from training.starts.whitening import WHITENED, WHITENED_DIRAC, WHITENED_NATURAL
from training.starts.whole import KAIMING_TOO

STANDINGS = ("ahead", "level", "behind")


class Question(NamedTuple):
    """A comparison of two starts.

    Args:
        text: What the question is.
        start: The start that is compared.
        baseline: The start that it is compared with.
        kind: How the kind of the networks begins for which the two differ.
    """

    text: str
    start: str
    baseline: str
    kind: str = ""


STEM = Question("`natural`, or a stem alone that whitens the task's own images", NATURAL, WHITENED)
BEHIND_STEM = Question("What `natural` draws behind the stem, or noise of its response", NATURAL, NATURAL_NOISE)
WITHOUT_DENSE = Question("`natural`, or with dense layers drawn too", NATURAL, DENSE_DRAWN)
QUESTIONS = (
    Question("The instrument: one start twice, whose differences are false", OTHER_DRAWS, OWN),
    Question("Eight filters of other networks or `natural`", MASTER_FILTERS, NATURAL),
    WITHOUT_DENSE,
    BEHIND_STEM,
    Question("`natural`, or its first edition", NATURAL, NATURAL_V1),
    Question("The means of depthwise kernels, kept or subtracted", V1_MEANS, NATURAL_V1, kind="depthwise"),
    Question("The scale of the weights, kept as by default or set to He's response", NATURAL_V1, V1_FAN_IN),
    Question("The same in chains without normalisation, where He's response is the default", V1_KEEP, NATURAL_V1),
    Question("The structure of the kernels, or their response alone", NATURAL_V1, NOISE_RESPONSE),
    Question("Mixtures, or the Gaussians of the same kernels", NATURAL_V1, GAUSSIAN_BY_DEPTH),
    STEM,
    Question("`natural`, or Kaiming's law, also where kernels are 1×1", NATURAL, KAIMING_TOO),
    Question("`natural`, or the inputs passed on alone", NATURAL, DIRAC),
    Question(
        "`natural`, or a stem that whitens the task's own images and the inputs passed on", NATURAL, WHITENED_DIRAC
    ),
    Question("Next to a whitened stem, `natural` or dirac", WHITENED_NATURAL, WHITENED_DIRAC),
)


def answers(on_record: Iterable[OnRecord], question: Question) -> list[Row]:
    """Compares two starts in every finished task that has both; p-values are adjusted over these by Holm's method."""
    _, start, baseline, kind = question
    asked = [
        each for each in on_record if each.finished and each.has(start, baseline) and each.task.kind.startswith(kind)
    ]
    found = [{"task": each.stage.name, **each.compare(start, baseline)} for each in asked]
    known = [row for row in found if row["p"] != ""]
    for row, adjusted in zip(known, holm([row["p"] for row in known]), strict=True):
        row["p"] = adjusted
    return found


def false_findings(on_record: Iterable[OnRecord]) -> list[Row]:
    """Returns the comparisons of the model's own start with itself, at other draws, that found a difference."""
    return [row for row in answers(on_record, QUESTIONS[0]) if row["p"] != "" and row["p"] < LEVEL]


def over_stem(on_record: Sequence[OnRecord]) -> dict[str, int]:
    """Counts how ``natural`` stands to a stem alone, and the tasks in which it changes nothing else."""
    both = [each.stage for each in on_record if each.finished and each.has(NATURAL, WHITENED)]
    return standings(on_record, STEM) | {"alone": sum(map(_changes_stem_alone, both))}


def _changes_stem_alone(stage: BenchmarkTask) -> bool:
    network = build(stage.network, stage.filters, *kind_of_images(stage.data))
    found = {layer.name: layer for layer in find_layers(network, lambda named: True)}
    return all(found[name].first for name in dwp_init.apply_(network, NATURAL, dry_run=True).initialized)


def standings(on_record: Iterable[OnRecord], question: Question) -> dict[str, int]:
    """Counts the tasks in which a start is ahead of another, level with it, and behind it, by the adjusted p-value."""
    rows = [row for row in answers(on_record, question) if row["p"] != ""]
    found = ["level" if row["p"] >= LEVEL else "ahead" if row["over"] > 0 else "behind" for row in rows]
    return {each: found.count(each) for each in STANDINGS}
