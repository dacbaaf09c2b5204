"""Which start to use, from the tasks of the benchmark that may choose, and whether other tasks confirm it."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training.experiments.judged_task import Role, Task
from training.experiments.paired import LEVEL
from training.starts.base import CIFAR10, IMAGENET, TASK, TINY_IMAGENET, find_start
from training.starts.controls import OWN
from training.starts.trained import TRAINED_NETWORK

Use = Literal["default", "yardstick"]
Standing = Literal["ahead", "level", "behind", "mixed"]
_SEEN = {CIFAR10: r"cifar10(\[|$)", TINY_IMAGENET: "tinyimagenet", IMAGENET: "(tiny)?imagenet"}
"""By what a start was trained on, a pattern of how the names of the data sets begin whose images it has seen."""


def has_seen(trained_on: str, data: str) -> bool:
    """Says whether a start was trained on images of a data set, or of one that contains it.

    A start that looks at the task's own training images is no such case.

    Args:
        trained_on: What the start's sources were trained on.
        data: Name of the data set, with a slice of its classes if any.
    """
    return any(source in trained_on and re.match(names, data) for source, names in _SEEN.items())


def possible_use(start: str, trained_on: str, data: str) -> Use:
    """Says whether a start may be a default, or only a yardstick, judged by a task.

    A default needs no images of the task, and has not been trained on any. It fits any network of its kind, and is no
    control, such as the model's own start under another name.

    Args:
        start: Name of the start.
        trained_on: What its sources were trained on.
        data: Name of the task's data set.
    """
    record = find_start(start)
    needs = record.needs if record else ("batch",)
    tied = start == TRAINED_NETWORK or {"batch", "learned"} & set(needs) or TASK in trained_on or is_control(start)
    return "yardstick" if tied or has_seen(trained_on, data) else "default"


def is_control(start: str) -> bool:
    """Whether a start is a control, which is none to use; see :class:`training.starts.base.Start`."""
    record = find_start(start)
    return record is not None and record.control


@dataclass(frozen=True)
class Statement:
    """How a start stands to the model's own, over the tasks of one part with one kind of network.

    Args:
        kind: Kind of the networks.
        part: Part of the benchmark.
        start: Name of the start.
        trained_on: What its sources were trained on.
        use: Whether these tasks may make it a default, or it is only a yardstick there.
        standing: ``ahead`` if it is ahead in some of the tasks and behind in none; ``behind`` likewise, ``mixed`` if it
            is both, and ``level`` if it is neither. The p-values of the tasks are multiplied by their number, so that
            one task of many is not found ahead by chance.
        over_own: By name of the task, the difference in points of accuracy.
        over_kaiming: The same over Kaiming's start, in tasks that have it.
        steps: By name of the task, how many times the steps of the model's own start it takes to the accuracy at which
            that ends; infinite where it is not reached.
        at_most: Whether one of these is an upper bound, because the accuracy is reached where the curve begins.
        ahead: Names of the tasks where it is ahead.
        level: Of those where it is level.
        behind: Of those where it is behind.
        wins: Seeds ahead, of all tasks.
        losses: Seeds behind.
    """

    kind: str
    part: str
    start: str
    trained_on: str
    use: Use
    standing: Standing
    over_own: tuple[tuple[str, float], ...]
    over_kaiming: tuple[tuple[str, float], ...]
    steps: tuple[tuple[str, float], ...]
    at_most: bool
    ahead: tuple[str, ...]
    level: tuple[str, ...]
    behind: tuple[str, ...]
    wins: int
    losses: int

    @property
    def about(self) -> tuple[str, str, str, Use]:
        """What the statement is about; the others of its fields are what it says."""
        return self.kind, self.part, self.start, self.use

    @property
    def points(self) -> float:
        """Mean over the tasks of the difference in points of accuracy."""
        return self.points_in([task for task, _ in self.over_own])

    @property
    def points_over_kaiming(self) -> float:
        """The same over Kaiming's start; NaN without a task that has it."""
        points = [points for _, points in self.over_kaiming]
        return math.fsum(points) / len(points) if points else math.nan

    @property
    def steps_ratio(self) -> float:
        """Geometric mean over the tasks of the ratio of steps; infinite where a target is not reached."""
        return math.exp(math.fsum(math.log(ratio) for _, ratio in self.steps) / len(self.steps))

    def points_in(self, tasks: Collection[str]) -> float:
        """The same over some of the tasks, by name."""
        return math.fsum(points for task, points in self.over_own if task in tasks) / len(tasks)


@dataclass(frozen=True)
class Verdict:
    """What the choosing tasks say.

    Args:
        tasks: The tasks.
        statements: The statements, those of one kind and part together.
    """

    tasks: tuple[Task, ...]
    statements: tuple[Statement, ...]

    def ahead(self) -> dict[tuple[str, str], list[Statement]]:
        """Returns by kind and part the possible defaults that are ahead of the model's own start, also on average."""
        found: dict[tuple[str, str], list[Statement]] = {}
        for each in self.statements:
            ahead = each.use == "default" and each.standing == "ahead" and each.points > 0
            found.setdefault((each.kind, each.part), []).extend([each] if ahead else [])
        return found


def of_most_points(statements: Sequence[Statement]) -> Statement | None:
    """Returns the statement of most points over the tasks that all of them share, else over its own."""
    shared = set.intersection(*({task for task, _ in each.over_own} for each in statements)) if statements else ()
    return max(statements, key=lambda each: each.points_in(shared) if shared else each.points, default=None)


@dataclass(frozen=True)
class Confirmation:
    """Whether a statement holds in the tasks that confirm.

    Args:
        statement: The statement of the choosing tasks.
        by: Names of the tasks that can confirm it: of the same kind and part, and of the same use.
        there: What the confirming tasks say; ``None`` if none of them was run.
        holds: Whether it is the same, also on average over the tasks; ``None`` until all of them were run.
    """

    statement: Statement
    by: tuple[str, ...]
    there: Statement | None
    holds: bool | None


def chosen(tasks: Iterable[Task]) -> Verdict:
    """Says how the starts stand to the model's own, by the tasks that may choose.

    Raises:
        ValueError: One of them is kept to confirm.
    """
    tasks = tuple(tasks)
    _check_roles(tasks, "choose", "confirmed()")
    return Verdict(tasks, tuple(_statements(tasks)))


def confirmed(tasks: Iterable[Task], verdict: Verdict) -> list[Confirmation]:
    """Says which statements of the choosing tasks hold in other tasks, of other networks and other data.

    Raises:
        ValueError: One of the tasks may choose, or shares its family of networks or classes of its data with one that
            did.
    """
    tasks = tuple(tasks)
    _check_roles(tasks, "confirm", "chosen()")
    for task in tasks:
        for other in verdict.tasks:
            _check_apart(task, other)
    found = {each.about: each for each in _statements(tasks)}
    return [_confirmation(each, tasks, found.get(each.about)) for each in verdict.statements]


def _confirmation(statement: Statement, tasks: Iterable[Task], there: Statement | None) -> Confirmation:
    kind, part, start, use = statement.about
    by = [
        task
        for task in tasks
        if (task.kind, task.part) == (kind, part) and possible_use(start, statement.trained_on, task.data) == use
    ]
    run = there is not None and all(task.table for task in by)  # else one could stop where it suits
    holds = _agree(statement, there) if there is not None and run else None
    return Confirmation(statement, tuple(task.name for task in by), there, holds)


def _agree(statement: Statement, there: Statement) -> bool:
    """Whether two statements are the same; one that is ahead in some tasks and behind on average is not ahead."""
    signs = {"ahead": 1, "behind": -1}
    sign = signs.get(there.standing, 0)
    return there.standing == statement.standing and (not sign or sign * there.points > 0)


def _check_roles(tasks: Iterable[Task], role: Role, other: str) -> None:
    for task in tasks:
        if task.role != role:
            raise ValueError(f"all tasks must have role={role!r}; {task.name} has {task.role!r}: give it to {other}")


def _check_apart(task: Task, other: Task) -> None:
    (data, ours), (their_data, theirs) = task.classes, other.classes
    shared = [f"the family of networks {task.family!r}"] if task.family == other.family else []
    if data == their_data and max(ours.start, theirs.start) < min(ours.stop, theirs.stop):
        shared.append(f"classes of {data}")
    if shared:
        raise ValueError(
            f"{task.name} cannot confirm what {other.name} chose, because they share {' and '.join(shared)}: "
            f"{task.network} on {task.data}, {other.network} on {other.data}; take another network and other data"
        )


def _statements(tasks: Iterable[Task]) -> Iterable[Statement]:
    """Makes a statement of the rows of each kind, part, start and use that have been tested."""
    groups: dict[tuple[str, str, str, Use], list[tuple[Task, Mapping[str, Any]]]] = {}
    tested: dict[tuple[str, str], set[str]] = {}
    for task in tasks:
        for row in task.table:
            if row["start"] != OWN and row["p_own"] != "":
                use = possible_use(row["start"], row["trained_on"], task.data)
                groups.setdefault((task.kind, task.part, row["start"], use), []).append((task, row))
                tested.setdefault((task.kind, task.part), set()).add(task.name)
    order = list(tested)
    for about, rows in sorted(groups.items(), key=lambda group: order.index(group[0][:2])):
        yield _statement(about, rows, LEVEL / len(tested[about[:2]]))


def _statement(
    about: tuple[str, str, str, Use], rows: Sequence[tuple[Task, Mapping[str, Any]]], level: float
) -> Statement:
    places: dict[str, list[str]] = {"ahead": [], "level": [], "behind": []}
    for task, row in rows:
        over = float(row["over_own"])
        found = "level" if float(row["p_own"]) >= level else "ahead" if over > 0 else "behind"
        places[found].append(task.name)
    ahead, same, behind = (tuple(names) for names in places.values())
    standing: Standing = "mixed" if ahead and behind else "ahead" if ahead else "behind" if behind else "level"
    wins, losses = (sum(int(row[key]) for _, row in rows) for key in ("wins_own", "losses_own"))
    over_own, over_kaiming = (
        tuple((task.name, float(row[key])) for task, row in rows if row[key] != "")
        for key in ("over_own", "over_kaiming")
    )
    steps = tuple((task.name, float(row["steps_ratio"] or math.inf)) for task, row in rows)
    kind, part, start, use = about
    at_most = any(
        row["steps_to_target"] and float(row["steps_to_target"]) <= task.steps_of_marks[0] for task, row in rows
    )
    compared = (over_own, over_kaiming, steps, at_most)
    trained_on = rows[0][1]["trained_on"]
    return Statement(kind, part, start, trained_on, use, standing, *compared, ahead, same, behind, wins, losses)
