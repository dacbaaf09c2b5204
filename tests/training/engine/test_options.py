from dataclasses import dataclass, field
from typing import Literal

import pytest

from training.engine.options import check_counts, check_marks, only, override
from training.engine.stage import GROWS, Stage


@dataclass(frozen=True)
class Count(Stage):
    upto: int = 3
    rate: float = 0.5
    sizes: tuple[int, int] = (1, 2)
    marks: tuple[int, ...] = (1,)
    names: tuple[str, ...] = ()
    title: str = "t"
    limit: int | None = None
    on: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("count.upto=7", "upto", 7),
        ("count.rate=2", "rate", 2.0),
        ("count.rate=1e-3", "rate", 1e-3),
        ("count.sizes=3,4", "sizes", (3, 4)),
        ("count.sizes=[3,4]", "sizes", (3, 4)),
        ("count.marks=5,6,7", "marks", (5, 6, 7)),
        ("count.marks=5", "marks", (5,)),
        ("count.marks=()", "marks", ()),
        ("count.names=own,Kaiming", "names", ("own", "Kaiming")),
        ("count.names=own;natural, fan_in; LSUV", "names", ("own", "natural, fan_in", "LSUV")),
        ("count.title=notmnist", "title", "notmnist"),
        ("count.title=7", "title", "7"),
        ("count.limit=9", "limit", 9),
        ("count.limit=none", "limit", None),
        ("count.on=true", "on", True),
        ("count.precision=bfloat16", "precision", "bfloat16"),
    ],
)
def test_override(setting: str, field: str, value: object) -> None:
    found = getattr(override({"count": Count()}, [setting])["count"], field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("count.upto", "stage.field=value"),
        ("upto=3", "stage.field=value"),
        ("counts.upto=3", "no stage 'counts' in this recipe, or not in what --only leaves; it has count"),
        ("count.up=3", "no field 'up'; its fields are upto, rate"),
        ("count.needs=[]", "no field 'needs'"),
        ("count.upto=3.5", "'3.5' is not of type int"),
        ("count.upto=true", "'true' is not of type int"),
        ("count.sizes=1,2,3", "not of type tuple"),
        ("count.on=1", "'1' is not of type bool"),
        ("count.precision=half", "'half' is not of type Literal['float32', 'bfloat16']"),
    ],
)
def test_override_errors(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("[", r"\[")):
        override({"count": Count()}, [setting])


def test_counts_and_marks() -> None:
    check_counts(epochs=1, seeds=2)
    check_marks((1, 2, 30))
    with pytest.raises(ValueError, match="epochs must be 1 or more; got 0"):
        check_counts(seeds=1, epochs=0)
    for marks in ((), (0, 2), (3, 1), (2, 2)):
        with pytest.raises(ValueError, match="steps_at must be steps from 1 up, each once and in order; got"):
            check_marks(marks, "steps_at")


@dataclass(frozen=True)
class Growing(Stage):
    runs: int = field(default=1, metadata=GROWS)


def test_a_field_that_grows_can_be_overridden() -> None:
    assert override({"a": Growing()}, ["a.runs=3"])["a"] == Growing(runs=3)


def test_only_some_stages_and_those_they_need() -> None:
    stages = {"a": Count(), "b": Count(needs=("a",)), "c": Count(needs=("b",)), "d": Count()}
    assert list(only(stages, ["c"])) == ["a", "b", "c"]
    assert list(only(stages, ["d", "a"])) == ["a", "d"]
    assert only(stages, None) == stages
    with pytest.raises(
        ValueError, match=r"no stage 'e' in this recipe, or not in what --only leaves; it has a, b, c, d"
    ):
        only(stages, ["a", "e"])
