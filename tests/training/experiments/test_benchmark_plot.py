import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.experiments.benchmark_plot import OVER_OWN, TO_TARGET, plot_tasks
from training.experiments.benchmark_table import task_table
from training.experiments.judged_task import Task

STARTS = ("own", "Kaiming", "LSUV", "natural", "unheard of")


def task(name: str = "bench_few_resnet", starts: Sequence[str] = STARTS, log_loss: float = 1.5, **other: Any) -> Task:
    """A task in which each start is 2 points ahead of the one before it, and half as fast."""
    rows = [
        {"start": start, "seed": seed, "trial": 0, "choosing": False, "init_s": 0.0, "train_s": 8.0, "drawn": 1.0}
        | {"accuracy": 50.0 + 2 * place + 0.1 * seed * place, "log_loss": log_loss - 0.1 * place + 0.001 * seed * place}
        | {"curve": [0.0, 40.0 / (1 + place), 40.0 - 30 * (start == "LSUV")]}
        for place, start in enumerate(starts)
        for seed in range(3)
    ]
    table = task_table(rows, marks=(1, 2, 4), steps=4, own="own", trials=((0.1, 0.1),))
    fields = {"network": "resnet", "data": "cifar10", "each": 50, "frozen": False, "steps_of_marks": (1, 2, 4)}
    return Task(name, "choose", **fields | {"kind": "dense", "table": table} | other)


def test_better_is_on_the_right_of_every_panel() -> None:
    made = task()
    natural = next(row for row in made.table if row["start"] == "natural")
    accuracy, loss = (panel.read(made, natural) for panel in OVER_OWN)
    assert accuracy.value == pytest.approx(6.3) and loss.value == pytest.approx(0.297)
    assert accuracy.half_width == pytest.approx(4.3027 * 0.3 / math.sqrt(3), abs=1e-3)
    assert accuracy.ends == pytest.approx((6.3 - 0.745, 6.3 + 0.745), abs=1e-3)
    assert (
        accuracy.differs
        and loss.differs is TO_TARGET[0].read(made, natural).differs is None
        and TO_TARGET[0].level == 1.0
        and OVER_OWN[0].level == 0.0
    )
    own, lsuv = (next(row for row in made.table if row["start"] == start) for start in ("own", "LSUV"))
    assert [panel.read(made, row).value for panel in TO_TARGET for row in (own, lsuv)] == [1, -math.inf, 1, -math.inf]
    diverged = OVER_OWN[1].read(made, {**lsuv, "loss_over_own": "", "diverged": "2"})
    assert diverged.value == -math.inf and math.isnan(OVER_OWN[1].read(made, {**lsuv, "loss_over_own": ""}).value)
    without_own = task(starts=("Kaiming", "natural"))
    assert all(math.isnan(panel.read(without_own, without_own.table[1]).value) for panel in (*OVER_OWN, *TO_TARGET))


def test_markers_tell_defaults_yardsticks_and_differences() -> None:
    def point(start: str, made: Task, p: float = 0.01) -> tuple[str, bool]:
        row = next(row for row in made.table if row["start"] == start)
        read = OVER_OWN[0].read(made, {**row, "p_own": p})
        return read.marker, bool(read.differs)

    made = task()
    assert [point(start, made)[0] for start in ("Kaiming", "LSUV", "natural")] == ["o", "s", "D"]
    assert point("Kaiming", made) == ("o", True) and point("Kaiming", made, p=0.05) == ("o", False)


@pytest.mark.parametrize("panels", [OVER_OWN, TO_TARGET])
def test_all_tasks_are_in_one_figure(panels: Any, tmp_path: Path) -> None:
    tasks = [
        task(),
        task("bench_full_vgg", each=0, starts=("own", "natural", "Xavier")),
        task("bench_frozen_3x3", frozen=True, log_loss=math.nan),
        task("bench_speed", network="speed", each=0, starts=("own", "natural")),
        task("bench_of_one_start", starts=("own",)),
        task("bench_without_own", starts=("Kaiming", "natural")),
    ]
    empty = task("bench_not_run", table=())
    plot_tasks([*tasks, empty], tmp_path / "all.png", panels)
    plot_tasks(tasks[:1], tmp_path / "one.png", panels)
    plot_tasks(tasks[4:5], tmp_path / "own.png", panels)
    with Image.open(tmp_path / "all.png") as many, Image.open(tmp_path / "one.png") as one:
        assert many.width == one.width == 9 * 130 and many.height > one.height
        assert (0xD8, 0x1B, 0x60) in {pixel for _, pixel in one.convert("RGB").getcolors(1 << 20)}  # natural's colour
    with pytest.raises(ValueError, match="none of 1 tasks has a table; run the recipe benchmark first"):
        plot_tasks([empty], tmp_path / "none.png")
