"""What the page of the benchmark and the README's table are made from: the verdict, the tasks, answers to questions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.engine.records import Row
from training.experiments.benchmark import Benchmark
from training.experiments.benchmark_check import BenchmarkCheck
from training.experiments.benchmark_plateau import BenchmarkPlateau
from training.experiments.benchmark_plot import OVER_OWN, TO_TARGET, plot_tasks
from training.experiments.judged_task import Role, Task
from training.experiments.paired import LEVEL, holm
from training.experiments.verdict import (
    Statement,
    Verdict,
    chosen,
    confirmed,
    has_seen,
    is_control,
    of_most_points,
)
from training.publish.benchmark_questions import (
    BEHIND_STEM,
    QUESTIONS,
    STANDINGS,
    WITHOUT_DENSE,
    answers,
    false_findings,
    over_stem,
    standings,
)
from training.publish.benchmark_record import OnRecord, are_of_now, table_of
from training.recipes import benchmark
from training.starts.natural import NATURAL

ROLES: tuple[Role, ...] = ("choose", "confirm")
HALF_WIDTHS = {"few labels": 1.0, "all labels": 0.7}  # points of accuracy, that intervals are meant to have
SHARED = ("seeds", "finalists", "trials", "curve_images")  # fields that all tasks have alike
PICTURES = {"benchmark.png": OVER_OWN, "benchmark_target.png": TO_TARGET}


def page_values() -> dict[str, Any]:
    """Returns what the template of the page gets."""
    on_record = read_tasks()
    stages = benchmark.stages().values()
    checks = [stage for stage in stages if isinstance(stage, BenchmarkCheck)]
    return summary_values(on_record) | {
        "tasks": {role: [each for each in on_record if each.task.role == role] for role in ROLES},
        "answers": {question: answers(on_record, question) for question in QUESTIONS},
        "plateaus": {stage.of: (stage, rows) for stage, rows in _longer_runs(on_record)},
        "checks": {stage: table_of(stage) for stage in checks},
        "has_seen": has_seen,
        "runs": sum(len(each.runs) for each in on_record),
        "hours": sum(row["init_s"] + row["train_s"] for each in on_record for row in each.runs) / 3600,
        "settings": sorted({each.stage.settings for each in on_record}),
        "at_the_edges": _at_the_edges(on_record),
        "widths": {part: _widths(on_record, part, most) for part, most in HALF_WIDTHS.items()},
        **{key: sorted({getattr(each.stage, key) for each in on_record}) for key in SHARED},
        "pictures": list(PICTURES) if any(each.finished for each in on_record) else [],
    }


def _at_the_edges(on_record: Iterable[OnRecord]) -> dict[str, int]:
    """Counts the starts of finished tasks that took the highest or the lowest learning rate, and all starts."""
    rows = [(each.stage, row) for each in on_record if each.finished for row in each.task.table if row["lr"]]
    taken = [(float(row["lr"]), {rate for rate, _ in stage.settings}) for stage, row in rows]
    edges = {"highest": sum(rate == max(rates) for rate, rates in taken)}
    return edges | {"lowest": sum(rate == min(rates) for rate, rates in taken), "all": len(rows)}


def _widths(on_record: Iterable[OnRecord], part: str, most: float) -> dict[str, float]:
    """Counts the intervals over the model's own start in a part that are at most so wide, on either side."""
    tables = [each.task.table for each in on_record if each.finished and each.task.part == part]
    found = [float(row["over_own_95"]) for table in tables for row in table if row["over_own_95"] != ""]
    return {"most": most, "within": sum(width <= most for width in found), "all": len(found)}


def _longer_runs(on_record: Sequence[OnRecord]) -> list[tuple[BenchmarkPlateau, list[Row]]]:
    """The stages of longer runs, with their tables."""
    stages = [stage for stage in benchmark.stages().values() if isinstance(stage, BenchmarkPlateau)]
    return [(stage, _longer(stage, on_record)) for stage in stages]


def _longer(stage: BenchmarkPlateau, on_record: Iterable[OnRecord]) -> list[Row]:
    """The longer runs of a task, the model's own start first, at the settings that the task's table has.

    There are none if a start draws from something else by now.
    """
    taken = [
        [row[key] for key in ("start", "lr", "weight_decay")]
        for each in on_record
        for row in each.task.table
        if each.stage.name == stage.of
    ]
    rows = table_of(stage)
    whole = all(row["seeds"] == str(stage.seeds) for row in rows) and are_of_now(stage)
    return rows if whole and all([row[key] for key in ("start", "lr", "weight_decay")] in taken for row in rows) else []


def read_tasks() -> list[OnRecord]:
    """Reads the tasks of the recipe ``benchmark``, in its order."""
    return [OnRecord.read(stage) for stage in benchmark.stages().values() if isinstance(stage, Benchmark)]


def draw_pictures(folder: Path) -> None:
    """Draws the figures of the page, if a task was run."""
    tasks = [each.task for each in read_tasks() if each.finished]
    for name, panels in PICTURES.items() if tasks else ():
        plot_tasks(tasks, folder / name, panels)


def summary_values(on_record: Sequence[OnRecord]) -> dict[str, Any]:
    """Returns what the summary gets: which start to use, by kind of network and part, from finished tasks alone.

    An unfinished task does not count, because its p-values change with every run.
    """
    verdict = chosen(_of_role(on_record, "choose"))
    confirmations = {each.statement: each for each in confirmed(_of_role(on_record, "confirm"), verdict)}
    return {
        "uses": [
            _use(verdict, kind, part, natural_first(ahead, on_record))
            for (kind, part), ahead in verdict.ahead().items()
        ],
        "confirmations": confirmations,
        "counts": {role: _counts([each for each in on_record if each.task.role == role]) for role in ROLES},
        "labels": sorted({each.stage.each for each in on_record} - {0}),
        "false_findings": false_findings(on_record),
        "over_stem": over_stem(on_record),
        "over_noise": standings(on_record, BEHIND_STEM),
        "over_drawn": standings(on_record, WITHOUT_DENSE),
        "most_steps": max([each.stage.steps for each in on_record if each.task.part != "few labels"], default=0),
        "longer": [(stage, row) for stage, rows in _longer_runs(on_record) for row in rows if row["start"] == NATURAL],
        "behind": [each for each in _rows_of(NATURAL, on_record) if _is_behind(each["row"])],
    }


def natural_first(ahead: Sequence[Statement], on_record: Iterable[OnRecord]) -> Statement | None:
    """Returns the start to name: ``natural``, which is one call, unless others are ahead of it too.

    They are compared with it by paired seeds in every finished task that both were run in, with p-values adjusted over
    all of these starts and tasks by Holm's method.

    Args:
        ahead: The possible defaults that are ahead of the model's own start, of one kind and part.
        on_record: The tasks.

    Returns:
        Of those that are ahead of ``natural`` somewhere and behind it nowhere the one of most points, ``natural`` if
        there are none, and the one of most points if ``natural`` itself is not ahead of the model's own start.
    """
    natural = next((each for each in ahead if each.start == NATURAL), None)
    if natural is None:
        return of_most_points(ahead)
    asked = {name for name, _ in natural.over_own}
    tasks = [each for each in on_record if each.stage.name in asked and each.finished]
    others = [(each, task) for each in ahead if each is not natural for task in tasks if task.has(each.start, NATURAL)]
    found = [(each, task.compare(each.start, NATURAL)) for each, task in others]
    known = [(each, row) for each, row in found if row["p"] != ""]
    adjusted = holm([row["p"] for _, row in known])
    differs = [(each, row["over"] > 0) for (each, row), p in zip(known, adjusted, strict=True) if p < LEVEL]
    better = [each for each in ahead if (each, True) in differs and (each, False) not in differs]
    return of_most_points(better) or natural


def _counts(on_record: Sequence[OnRecord]) -> dict[str, Any]:
    finished, begun = (sum(each) for each in zip(*((each.finished, each.begun) for each in on_record), strict=True))
    data = sorted({each.task.data for each in on_record if each.finished})
    return {"all": len(on_record), "finished": finished, "begun": begun, "data": data}


def _rows_of(start: str, on_record: Iterable[OnRecord]) -> list[dict[str, Any]]:
    """The rows of a start in the finished tasks."""
    finished = [each for each in on_record if each.finished]
    return [{"task": each.task, "row": row} for each in finished for row in each.task.table if row["start"] == start]


def _is_behind(row: Mapping[str, Any]) -> bool:
    """Whether the interval is below 0, which is stricter to ``natural`` than the p-value adjusted over all starts."""
    return row["over_own_95"] != "" and float(row["over_own"]) < -float(row["over_own_95"])


def _of_role(on_record: Iterable[OnRecord], role: Role) -> list[Task]:
    """The tasks of a role, without the tables of those that are not finished."""
    return [
        each.task if each.finished else replace(each.task, table=()) for each in on_record if each.task.role == role
    ]


def _over_all(statements: Sequence[Statement]) -> dict[str, Any]:
    """Adds up statements on a start, such as those where it may be a default and those where it has seen the data."""
    points = [points for each in statements for _, points in each.over_own]
    tasks = {name: [task for each in statements for task in getattr(each, name)] for name in STANDINGS}
    seeds = {name: sum(getattr(each, name) for each in statements) for name in ("wins", "losses")}
    return {"points": math.fsum(points) / len(points), **tasks, **seeds}


def _points_there(statements: Iterable[Statement], other: Statement | None) -> float | None:
    """The mean points over the tasks of another statement, if they share some."""
    tasks = [task for task, _ in other.over_own] if other else []
    points = [points for each in statements for task, points in each.over_own if task in tasks]
    return math.fsum(points) / len(points) if points else None


def _use(verdict: Verdict, kind: str, part: str, best: Statement | None) -> dict[str, Any]:
    """What is said of one kind of network in one part: the start to use, ``natural``, and the best yardstick."""
    here = [each for each in verdict.statements if (each.kind, each.part) == (kind, part)]
    yardsticks = [
        each for each in here if each.use == "yardstick" and each.start != NATURAL and not is_control(each.start)
    ]
    natural = [each for each in here if each.start == NATURAL]
    yardstick = of_most_points([each for each in yardsticks if each.standing == "ahead"])
    return {
        "kind": kind,
        "part": part,
        "best": best,
        "to_confirm": best or next(iter(natural), None),
        "natural": _over_all(natural) if natural else None,
        "yardstick": yardstick,
        "natural_there": _points_there(natural, yardstick),
    }
