import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.engine.records import Row
from training.experiments.benchmark_table import task_table
from training.experiments.judged_task import Task, network_kind, task_of
from training.experiments.paired import holm
from training.experiments.verdict import (
    Statement,
    Verdict,
    chosen,
    confirmed,
    has_seen,
    of_most_points,
    possible_use,
)
from training.networks.registry import build
from training.starts.base import CIFAR10, IMAGENET, KAIMING, TASK, TINY_IMAGENET, UNTRAINED

CHOOSE = Task("bench_few_resnet", "choose", "resnet(blocks=1)", "cifar10", 50, False, (100, 200), "dense")
CONFIRM = replace(CHOOSE, name="bench_new", role="confirm", network="timm:densenet121", data="cifar100")


def to_use(verdict: Verdict) -> dict[tuple[str, str], Statement | None]:
    return {about: of_most_points(statements) for about, statements in verdict.ahead().items()}


def row(start: str, over: float, p: float | str, wins: int = 0, losses: int = 0, trained_on: str = UNTRAINED) -> Row:
    return {"start": start, "trained_on": trained_on, "over_own": over, "p_own": p} | {
        "wins_own": wins,
        "losses_own": losses,
        "over_kaiming": "" if start == KAIMING else over - 1,
        "steps_ratio": str(1 / over) if over > 0 else "",
        "steps_to_target": str(200 / over) if over > 0 else "",
    }


def natural(over: float, p: float | str, **other: Any) -> Row:
    return row("natural", over, p, trained_on=TINY_IMAGENET, **other)


def told(verdict: Verdict, start: str) -> list[tuple[str, str, str]]:
    return [(each.part, each.use, each.standing) for each in verdict.statements if each.start == start]


def test_a_start_stands_as_its_adjusted_p_values_say() -> None:
    first = replace(CHOOSE, table=[natural(2.0, 0.01, wins=8), row("Xavier", -1.0, 0.02), row("dirac", 9.0, 0.025)])
    second = replace(
        CHOOSE, name="b", table=[natural(1.0, 0.2, wins=5, losses=3), row("Xavier", 1.0, 0.01), row("LSUV", -1.0, 0.0)]
    )
    verdict = chosen([first, second])
    found = {each.start: each for each in verdict.statements}
    assert {start: each.standing for start, each in found.items()} == {
        "natural": "ahead",
        "Xavier": "mixed",
        "dirac": "level",
        "LSUV": "behind",
    }
    best = found["natural"]
    assert (best.ahead, best.level, best.behind) == (("bench_few_resnet",), ("b",), ())
    assert (best.points, best.points_over_kaiming) == (1.5, 0.5)
    assert best.at_most and not found["Xavier"].at_most  # reached at step 100, where curves begin, or at 200
    assert best.steps_ratio == pytest.approx(math.sqrt(0.5 * 1.0)) and math.isinf(found["LSUV"].steps_ratio)
    assert (best.wins, best.losses, best.trained_on) == (13, 3, TINY_IMAGENET)
    assert to_use(verdict) == {("dense", "few labels"): best}


def test_no_start_is_ahead_because_it_had_many_tasks() -> None:
    """Of starts that differ in nothing one in twenty would be found ahead in each task, and more in several."""
    generator = torch.Generator().manual_seed(0)
    found = 0
    for _ in range(200):
        tasks = [replace(CHOOSE, name=str(task), table=null_table(generator)) for task in range(8)]
        found += any(each.standing != "level" for each in chosen(tasks).statements)
    assert found <= 18  # 10 are expected; one in a hundred such tests would find more


def null_table(generator: torch.Generator) -> list[Row]:
    """Rows of three starts over their baseline, of p-values by Holm's method."""
    values = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return [row(start, 1.0, p) for start, p in zip(("Xavier", "dirac", "orthogonal"), holm(values), strict=True)]


def test_points_over_kaiming_are_of_tasks_that_have_it() -> None:
    task = replace(CHOOSE, table=[row(KAIMING, 2.0, 0.01), natural(3.0, 0.01)])
    over = {each.start: each.points_over_kaiming for each in chosen([task]).statements}
    assert over["natural"] == 2.0 and math.isnan(over[KAIMING])


def test_starts_that_are_ahead_are_ranked_by_the_tasks_that_all_of_them_were_run_in() -> None:
    """Else the start that was run where all are far ahead would be named."""
    easy = replace(CHOOSE, name="easy", table=[row("Xavier", 9.0, 0.01)])
    hard = replace(CHOOSE, name="hard", table=[row("Xavier", 1.0, 0.01), natural(2.0, 0.01)])
    verdict = chosen([easy, hard])
    assert {each.start: each.points for each in verdict.statements} == {"Xavier": 5.0, "natural": 2.0}
    assert [found and found.start for found in to_use(verdict).values()] == ["natural"]
    apart = replace(hard, table=[natural(2.0, 0.01)])
    assert [found and found.start for found in to_use(chosen([easy, apart])).values()] == ["Xavier"]


def test_a_start_that_is_ahead_once_and_behind_on_average_is_not_to_use() -> None:
    tasks = [
        replace(CHOOSE, name=name, table=[natural(*found)]) for name, found in {"a": (1, 0.01), "b": (-2, 0.2)}.items()
    ]
    verdict = chosen(tasks)
    assert told(verdict, "natural") == [("few labels", "default", "ahead")]
    assert list(to_use(verdict).values()) == [None]


def test_kinds_of_networks_and_amounts_of_labels_are_apart() -> None:
    tasks = [
        replace(CHOOSE, table=[natural(1.0, 0.01)]),
        replace(CHOOSE, each=0, table=[natural(-1.0, 0.01)]),
        replace(CHOOSE, frozen=True, table=[natural(0.1, 0.9)]),
        replace(CHOOSE, kind="depthwise", table=[natural(1.0, ""), row("own", 0.0, "")]),  # not tested
    ]
    verdict = chosen(tasks)
    assert told(verdict, "natural") == [
        ("few labels", "default", "ahead"),
        ("all labels", "default", "behind"),
        ("frozen kernels", "default", "level"),
    ]
    assert [found and found.start for found in to_use(verdict).values()] == ["natural", None, None]


def test_a_default_has_not_seen_the_images() -> None:
    def use(start: str, trained_on: str, data: str = "cifar10") -> str:
        return possible_use(start, trained_on, data)

    assert use("natural", TINY_IMAGENET) == use("master filters", IMAGENET) == use("Xavier", UNTRAINED) == "default"
    assert use("natural", TINY_IMAGENET, "tinyimagenet32-a[0:20]") == "yardstick"
    assert use("master filters", IMAGENET, "tinyimagenet32-a") == use("some", CIFAR10) == "yardstick"
    assert use("whitened stem", TASK) == use("LSUV", TASK) == "yardstick"
    assert use("trained network", CIFAR10, "fashionmnist") == use("own, other draws", UNTRAINED) == "yardstick"
    assert has_seen(f"{TASK}, {TINY_IMAGENET}", "tinyimagenet32-a") and not has_seen(TASK, "cifar10")
    assert has_seen(CIFAR10, "cifar10[0:5]") and not has_seen(CIFAR10, "cifar100")  # which has other images
    seen = replace(CHOOSE, data="tinyimagenet32-a[0:20]", table=[natural(9.0, 0.001)])
    stem = row("whitened stem", 5.0, 0.001, trained_on=TASK)
    verdict = chosen([replace(CHOOSE, table=[natural(1.0, 0.3), stem]), seen])
    assert told(verdict, "natural") == [("few labels", "default", "level"), ("few labels", "yardstick", "ahead")]
    assert to_use(verdict) == {("dense", "few labels"): None}


def test_statements_are_confirmed_by_other_networks_and_other_data() -> None:
    verdict = chosen(
        [
            replace(CHOOSE, table=[natural(1.0, 0.01), row("Xavier", 1.0, 0.01), row("dirac", 0.0, 0.9)]),
            replace(CHOOSE, each=0, table=[natural(1.0, 0.01)]),
        ]
    )
    found = confirmed([replace(CONFIRM, table=[natural(3.0, 0.001), row("Xavier", 1.0, 0.5)])], verdict)
    assert [(each.statement.start, each.holds) for each in found] == [
        ("natural", True),
        ("Xavier", False),
        ("dirac", None),
        ("natural", None),  # with all labels
    ]
    assert found[0].there is not None and found[0].there.points == 3.0
    assert [each.by for each in found] == [("bench_new",)] * 3 + [()]
    assert all(each.there is None and each.holds is None for each in confirmed([CONFIRM], verdict))  # not run
    seen = confirmed([replace(CONFIRM, data="tinyimagenet32-a")], verdict)
    assert [each.by for each in seen] == [(), ("bench_new",), ("bench_new",), ()]  # of another use for natural


@pytest.mark.parametrize(("second", "holds"), [(-0.9, True), (-2.9, False)])
def test_what_is_ahead_in_one_task_and_behind_on_average_is_not_confirmed(second: float, holds: bool) -> None:
    verdict = chosen([replace(CHOOSE, table=[natural(3.0, 0.001)])])
    tables = [[natural(1.0, 0.001)], [natural(second, 0.3)]]
    (found,) = confirmed(
        [replace(CONFIRM, name=str(place), table=table) for place, table in enumerate(tables)], verdict
    )
    assert found.there is not None and found.there.standing == "ahead" and found.holds is holds
    (half,) = confirmed([replace(CONFIRM, name="0", table=tables[0]), replace(CONFIRM, name="1")], verdict)
    assert half.there is not None and half.holds is None  # one of the two was not run


def test_roles_are_not_mixed() -> None:
    with pytest.raises(ValueError, match=r"must have role='choose'; bench_new has 'confirm': give it to confirmed\(\)"):
        chosen([CHOOSE, CONFIRM])
    with pytest.raises(ValueError, match=r"role='confirm'; bench_few_resnet has 'choose': give it to chosen\(\)"):
        confirmed([CHOOSE], chosen([]))


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({"network": "timm:wide_resnet50_2"}, "the family of networks 'resnet'"),
        ({"network": "resnet-7x7-stem"}, "the family of networks 'resnet'"),
        ({"data": "cifar10"}, "classes of cifar10"),
        ({"data": "cifar10[2:4]"}, "classes of cifar10"),
        ({"network": "resnet", "data": "cifar10[:4]"}, "the family of networks 'resnet' and classes of cifar10"),
    ],
)
def test_what_chose_does_not_confirm(settings: dict[str, Any], shared: str) -> None:
    with pytest.raises(ValueError, match=f"bench_new cannot confirm what bench_few_resnet chose, .* share {shared}: "):
        confirmed([replace(CONFIRM, **settings)], chosen([CHOOSE]))


def test_other_classes_of_a_set_are_other_data() -> None:
    verdict = chosen([replace(CHOOSE, data="tinyimagenet32-a[0:20]")])
    assert confirmed([replace(CONFIRM, data="tinyimagenet32-a[20:]")], verdict) == []


@pytest.mark.parametrize(
    ("network", "family"),
    [
        ("mobilenet(kernel=5)", "mobilenet"),
        ("timm:mobilenetv3_small_050", "mobilenet"),
        ("timm:convnextv2_atto", "convnext"),
        ("timm:efficientnet_b0", "efficientnet"),
        ("timm:densenet121", "densenet"),
        ("cifar-source", "cifar"),
    ],
)
def test_families_of_networks(network: str, family: str) -> None:
    assert replace(CHOOSE, network=network).family == family


@pytest.mark.parametrize(
    ("network", "filters", "kind"),
    [
        ("resnet", (4, 4), "dense, normalised"),
        ("vgg", (4, 4), "dense, without normalisation"),
        ("convmixer", (4,), "depthwise, normalised"),
        ("mobilenet", (4, 4), "depthwise, normalised"),
    ],
)
def test_kinds_of_networks(network: str, filters: tuple[int, ...], kind: str) -> None:
    assert network_kind(build(network, filters, 10, (3, 32, 32))) == kind


def test_a_task_is_made_of_its_stage_and_its_table() -> None:
    fields = {"name": "bench_a", "role": "choose", "network": "convmixer(blocks=2)", "filters": (4,), "data": "mnist"}
    stage = SimpleNamespace(**fields, each=0, frozen=True, batch_size=3, steps_of_marks=(10,))
    runs = [
        {"start": start, "seed": seed, "trial": 0, "choosing": False, "accuracy": 50.0 + seed + over, "log_loss": 1.0}
        | {"curve": [1.0], "init_s": 0.0, "train_s": 1.0, "drawn": 1.0}
        for start, over in (("own", 0.0), ("natural", 2.0))
        for seed in range(2)
    ]
    table = task_table(runs, marks=(10,), steps=10, own="own", trials=((0.1, 0.1),))
    task = task_of(stage, [{key: str(value) for key, value in row.items()} for row in table])  # as read from its file
    assert (task.kind, task.part) == ("depthwise, normalised", "frozen kernels")
    (statement,) = chosen([task]).statements
    assert (statement.start, statement.standing, statement.points, statement.wins) == ("natural", "ahead", 2.0, 2)
    assert task_of(stage).table == ()
