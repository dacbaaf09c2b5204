import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from training.engine.stage import (
    Context,
    Stage,
    StageChangedError,
    load_checkpoint,
    override,
    publish_records,
    read_done,
    read_metrics,
    record_metrics,
    run_stages,
    save_checkpoint,
)


@dataclass(frozen=True)
class Count(Stage):
    upto: int = 3
    rate: float = 0.5
    sizes: tuple[int, int] = (1, 2)
    marks: tuple[int, ...] = (1,)
    title: str = "t"
    limit: int | None = None
    on: bool = False

    def run(self, folder: Path, context: Context) -> dict:
        record_metrics(folder, upto=self.upto)
        if self.upto < 0:
            raise KeyboardInterrupt
        return {"total": sum(range(self.upto))}


def test_finished_stage_is_reused_and_changed_one_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    context = Context(out=tmp_path)
    run_stages({"count": Count()}, context)
    run_stages({"count": Count()}, context)
    assert "reused" in capsys.readouterr().out
    assert len(read_metrics(tmp_path / "count")) == 1
    with pytest.raises(StageChangedError, match=r"settings\.upto is 3 there, 4 now.*--out"):
        run_stages({"count": Count(upto=4)}, context)
    assert read_done(tmp_path / "count")["total"] == 3


def test_a_change_upstream_is_refused_downstream_before_anything_runs(tmp_path: Path) -> None:
    context = Context(out=tmp_path)
    run_stages({"a": Count(), "b": Count(needs=("a",))}, context)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    with pytest.raises(StageChangedError, match=r"needs\.a is .* there"):
        run_stages({"a": Count(upto=5), "b": Count(needs=("a",))}, context)
    assert not list((tmp_path / "a").iterdir())


def test_interrupted_stage_runs_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    assert not (tmp_path / "count" / "done.json").exists()
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    assert len(read_metrics(tmp_path / "count")) == 2


def test_missing_need_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage 'b' needs a, which no earlier stage"):
        run_stages({"b": Count(needs=("a",))}, Context(out=tmp_path))


def test_metrics_survive_a_line_cut_short(tmp_path: Path) -> None:
    record_metrics(tmp_path, step=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    record_metrics(tmp_path, step=3)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


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
        ("count.title=notmnist", "title", "notmnist"),
        ("count.title=7", "title", "7"),
        ("count.limit=9", "limit", 9),
        ("count.limit=none", "limit", None),
        ("count.on=true", "on", True),
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
        ("counts.upto=3", "no stage 'counts' in this recipe; it has count"),
        ("count.up=3", "no field 'up'; its fields are upto, rate"),
        ("count.needs=[]", "no field 'needs'"),
        ("count.upto=3.5", "'3.5' is not of type int"),
        ("count.upto=true", "'true' is not of type int"),
        ("count.sizes=1,2,3", "not of type tuple"),
        ("count.on=1", "'1' is not of type bool"),
    ],
)
def test_override_errors(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("[", r"\[")):
        override({"count": Count()}, [setting])


def test_publish_records_copies_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "stage" / "record").mkdir(parents=True)
    (tmp_path / "stage" / "record" / "table.csv").write_text("a\n1\n")
    (tmp_path / "stage" / "done.json").write_text(json.dumps({}))
    copied = publish_records(tmp_path / "stage", tmp_path / "results")
    assert copied == [tmp_path / "results" / "table.csv"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["table.csv"]


def test_a_folder_that_no_stage_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / "mine.txt").write_text("dear")
    with pytest.raises(StageChangedError, match=r"holds mine\.txt but no config\.json.*choose another --out"):
        run_stages({"count": Count()}, Context(out=tmp_path))
    assert [path.name for path in (tmp_path / "count").iterdir()] == ["mine.txt"]


def test_a_data_set_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each split and each context, with the context's options."""
    loaded = []

    def load(name: str, split: str, **options: Any) -> list[str]:
        loaded.append((name, split, *options.values()))
        return [name, split]

    monkeypatch.setattr("training.engine.stage.load_images", load)
    context = Context(out=tmp_path, data_root=tmp_path, download=True)
    train = context.images("mnist", "train")
    assert context.images("mnist", "test") == ["mnist", "test"] and context.images("mnist", "train") is train
    other = replace(context, smoke=True)
    assert other.images("mnist", "train") is not train
    both = [("mnist", "train", tmp_path, True, False), ("mnist", "test", tmp_path, True, False)]
    assert loaded == [*both, ("mnist", "train", tmp_path, True, True)]


def test_smoke_is_part_of_the_identity(tmp_path: Path) -> None:
    run_stages({"count": Count()}, Context(out=tmp_path, smoke=True))
    with pytest.raises(StageChangedError, match=r"data\.smoke is True there, None now"):
        run_stages({"count": Count()}, Context(out=tmp_path))


@dataclass(frozen=True)
class Twice(Stage):
    """Runs itself while it runs."""

    def run(self, folder: Path, context: Context) -> dict:
        run_stages({"twice": Twice()}, context)
        return {}


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"another process is at work in .*twice; wait for it, or choose another --out"):
        run_stages({"twice": Twice()}, Context(out=tmp_path))


def test_a_broken_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"epoch": 3})
    assert load_checkpoint(tmp_path / "a.pt") == {"epoch": 3}
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:50])
    with pytest.raises(ValueError, match="is no whole checkpoint; remove it to start that part again"):
        load_checkpoint(tmp_path / "a.pt")
