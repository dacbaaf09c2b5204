from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.experiments.benchmark import Benchmark
from training.experiments.benchmark_task import Pools
from training.experiments.judged_task import task_of
from training.recipes.benchmark import CHOOSING, CONFIRMING, stages
from training.starts.base import STARTS
from training.starts.controls import OWN

TASKS = {name: stage for name, stage in stages().items() if isinstance(stage, Benchmark)}
KINDS = {(stage.network, stage.data): name for name, stage in reversed(TASKS.items())}


@pytest.mark.parametrize("smoke", [False, True])
def test_every_stage_can_be_run(smoke: bool) -> None:
    found: dict[str, Any] = stages(smoke)
    tasks = [f"bench_{name}" for name in CHOOSING | CONFIRMING]
    longer = [f"{name}_plateau" for name in tasks if name.startswith("bench_full_")]
    assert list(found) == ["bench_check", *tasks, *longer]
    for name, stage in found.items():
        stage.check()
        assert stage.name == name and (smoke or name not in tasks or stage.seeds >= 8)
    for name in longer:
        assert found[name].steps == 5 * found[found[name].of].steps


def test_tasks_that_confirm_have_other_networks_and_other_classes() -> None:
    tasks = [task_of(stage) for stage in TASKS.values()]
    assert {task.name.removeprefix("bench_") for task in tasks if task.role == "confirm"} == CONFIRMING.keys()
    families, classes = (
        {role: {get(task) for task in tasks if task.role == role} for role in ("choose", "confirm")}
        for get in (lambda task: task.family, lambda task: task.classes)
    )
    assert not families["choose"] & families["confirm"]
    for data, part in classes["confirm"]:
        assert not any(data == other and set(part) & set(theirs) for other, theirs in classes["choose"])


def test_networks_that_choose_have_two_widths() -> None:
    widths: dict[str, set[int]] = {}
    for name in CHOOSING:
        stage = TASKS[f"bench_{name}"]
        widths.setdefault(task_of(stage).family, set()).update(stage.filters[:1])
    assert {family for family, found in widths.items() if len(found) < 2} == set()


@pytest.mark.parametrize("name", KINDS.values())
def test_every_start_of_a_task_can_be_drawn(name: str, tmp_path: Path) -> None:
    """Else all later tasks would wait for one that has a start that cannot; those from files are left out."""
    for package in ("timm", "lsuv", "anyinit"):
        pytest.importorskip(package)
    widths = tuple(32 + 8 * number for number in range(len(TASKS[name].filters)))  # chains grow
    stage = replace(TASKS[name], filters=widths, each=0)
    shape = (1, 28, 28) if stage.data in ("fashionmnist", "notmnist") else (3, 32, 32)
    part = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    for start in stage.starts:
        if "files" not in STARTS[start].needs:
            network, _, drawn = stage.begin(Pools(part, part, part, tmp_path), start, 0)
            assert (drawn > 0) == (start != OWN)
            assert network.eval()(part[0][:2]).isfinite().all()
