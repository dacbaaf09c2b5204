import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from filelock import FileLock

from training.engine.records import ROOT, read_done, read_metrics, record_metrics
from training.engine.run import publish_records, run_stages
from training.engine.stage import GROWS, Context, Stage, StageChangedError


@dataclass(frozen=True)
class Count(Stage):
    upto: int = 3

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


@dataclass(frozen=True)
class Copied(Stage):
    """Leaves a file of the user's."""

    def run(self, folder: Path, context: Context) -> dict:
        (folder / "copy").write_text((context.out / "text").read_text())
        return {}


def test_what_was_made_from_a_stage_that_was_made_again_is_refused(tmp_path: Path) -> None:
    stages, context = {"a": Copied(), "b": Count(needs=("a",))}, Context(out=tmp_path)
    (tmp_path / "text").write_text("first")
    run_stages(stages, context)
    for text in ("first", "second"):  # the same files, and others
        (tmp_path / "text").write_text(text)
        shutil.rmtree(tmp_path / "a")
        if text == "first":
            run_stages(stages, context)
    with pytest.raises(StageChangedError, match=r"b was made from files of a that are not those there now.*remove .*b"):
        run_stages(stages, context)
    shutil.rmtree(tmp_path / "b")
    run_stages(stages, context)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    del config["made_from"]  # as an older version left it
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    done = json.loads((tmp_path / "b" / "done.json").read_text())
    (tmp_path / "b" / "done.json").write_text(json.dumps({"total": done["total"], "made_with": done["made_with"]}))
    run_stages(stages, context)


def test_interrupted_stage_runs_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    assert not (tmp_path / "count" / "done.json").exists()
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    assert len(read_metrics(tmp_path / "count")) == 2


def test_what_a_kill_left_of_a_first_config_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / ".config.json.0a1b.tmp").write_text("{")
    run_stages({"count": Count()}, Context(out=tmp_path))
    assert read_done(tmp_path / "count")["total"] == 3


def test_a_stage_that_another_process_finishes_meanwhile_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, once = FileLock.acquire, []

    def late(lock: FileLock) -> object:
        if not once:
            once.append(True)
            run_stages({"count": Count()}, Context(out=tmp_path))  # between the check and the lock
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", late)
    run_stages({"count": Count()}, Context(out=tmp_path))
    assert len(read_metrics(tmp_path / "count")) == 1


def test_missing_need_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage 'b' needs a, which no earlier stage"):
        run_stages({"b": Count(needs=("a",))}, Context(out=tmp_path))


def test_publish_records_copies_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "stage" / "record").mkdir(parents=True)
    (tmp_path / "stage" / "record" / "table.csv").write_text("a\n1\n")
    (tmp_path / "stage" / "record" / ".table.csv.0a1b.tmp").write_text("cut sho")
    (tmp_path / "stage" / "done.json").write_text(json.dumps({}))
    copied = publish_records(tmp_path / "stage", tmp_path / "results")
    assert copied == [tmp_path / "results" / "table.csv"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["table.csv"]


@dataclass(frozen=True)
class Growing(Stage):
    name: str = "a"
    runs: int = field(default=1, metadata=GROWS)

    def run(self, folder: Path, context: Context) -> dict:
        (folder / "record").mkdir(exist_ok=True)
        for run in range(len(read_metrics(folder)), abs(self.runs)):
            record_metrics(folder, run=run)
        (folder / "record" / "runs.txt").write_text(str(read_metrics(folder)))
        if self.runs < 0:
            raise KeyboardInterrupt
        return {"runs": self.runs}


def test_a_stage_that_grows_keeps_what_is_done(tmp_path: Path) -> None:
    for runs in (1, 3):
        folder = run_stages({"a": Growing(runs=runs)}, Context(tmp_path))["a"]
        assert read_done(folder)["runs"] == runs and len(read_metrics(folder)) == runs
    with pytest.raises(StageChangedError, match=r"settings\.name is 'a' there, 'b' now"):
        run_stages({"a": Growing(name="b")}, Context(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_stages({"a": Growing(runs=-5)}, Context(tmp_path))
    assert not (folder / "done.json").exists()  # else a growth that was interrupted would count as done
    run_stages({"a": Growing(runs=5)}, Context(tmp_path))
    assert len(read_metrics(folder)) == 5
    with pytest.raises(ValueError, match=r"stage 'b' needs a, which can grow"):
        run_stages({"a": Growing(), "b": Count(needs=("a",))}, Context(tmp_path))


def test_a_finished_stage_is_run_again_where_an_input_that_may_be_replaced_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(Growing, "run", lambda *given: {"runs": ran.append(1)})
    for digest in ("x", "x", "y"):
        monkeypatch.setattr(Growing, "replaceable_inputs", lambda stage, context, digest=digest: {"source": digest})
        run_stages({"a": Growing()}, Context(tmp_path))
    assert len(ran) == 2


def test_an_input_that_an_earlier_stage_replaces_counts_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(Growing, "run", lambda stage, *given: {"runs": ran.append(stage.runs)})
    monkeypatch.setattr(
        Growing, "replaceable_inputs", lambda stage, context: {"runs before": ran.count(1)} if stage.runs == 2 else {}
    )
    stages = {"a": Growing(runs=1), "b": Growing(runs=2)}
    run_stages({"b": stages["b"]}, Context(tmp_path))
    run_stages(stages, Context(tmp_path))
    run_stages(stages, Context(tmp_path))
    assert ran == [2, 1, 2]


def test_an_interrupted_stage_is_recorded_as_far_as_it_is(tmp_path: Path) -> None:
    stages = {"a": Growing(runs=2), "b": Growing(runs=-1), "c": Growing()}
    with pytest.raises(KeyboardInterrupt):
        run_stages({"b": stages["b"]}, Context(tmp_path / "runs"), tmp_path / "results")
    assert (tmp_path / "results" / "runs.txt").read_text() == "[{'run': 0}]"
    with pytest.raises(KeyboardInterrupt):
        run_stages(stages, Context(tmp_path / "more"), tmp_path / "results")
    assert not (tmp_path / "more" / "c").exists()


def test_only_what_a_stage_wrote_itself_is_recorded(tmp_path: Path) -> None:
    context, results = Context(tmp_path / "runs"), tmp_path / "results"
    record = run_stages({"a": Growing()}, context, results)["a"] / "record" / "runs.txt"
    record.write_text("edited")
    with pytest.raises(ValueError, match=r"runs\.txt has changed"):
        run_stages({"a": Growing()}, context, results)
    with pytest.raises(StageChangedError, match="name is 'a' there"):
        run_stages({"a": Growing(name="b")}, context, results)
    with FileLock(tmp_path / "runs" / "a" / ".lock"), pytest.raises(OSError, match="another process is at work"):
        run_stages({"a": Growing(runs=2)}, context, results)
    with patch.object(Growing, "run", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_stages({"a": Growing(runs=2)}, context, results)
    assert (results / "runs.txt").read_text() == "[{'run': 0}]"
    run_stages({"a": Growing(runs=2)}, context, results)
    assert (results / "runs.txt").read_text() == "[{'run': 0}, {'run': 1}]"


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    (tmp_path / "count" / "record").mkdir(parents=True)
    left = [tmp_path / "count" / name for name in (".config.json.ab12cd34.tmp", "record/.a.csv.0123abcd.tmp")]
    for path in (*left, tmp_path / "count" / ".mine.tmp"):
        path.touch()
    (tmp_path / "count" / "record").rename(tmp_path / "record")  # a first config is written into an empty folder
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    (tmp_path / "record").rename(tmp_path / "count" / "record")
    with pytest.raises(KeyboardInterrupt):
        run_stages({"count": Count(upto=-1)}, Context(out=tmp_path))
    assert not any(path.exists() for path in left) and (tmp_path / "count" / ".mine.tmp").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "done.json"])
def test_a_finished_stage_with_a_damaged_file_is_not_reused(tmp_path: Path, name: str) -> None:
    stages = {"a": Count(), "b": Count(needs=("a",))}
    run_stages(stages, Context(out=tmp_path))
    path = tmp_path / "a" / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"', b"'", 1))
    with pytest.raises(ValueError, match=rf"{path} .*, or remove {tmp_path / 'a'} to make it again"):
        run_stages(stages, Context(out=tmp_path))
    path.write_bytes(content)
    run_stages(stages, Context(out=tmp_path))


def test_a_folder_that_no_stage_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / "mine.txt").write_text("dear")
    with pytest.raises(StageChangedError, match=r"holds mine\.txt but no config\.json.*choose another --out"):
        run_stages({"count": Count()}, Context(out=tmp_path))
    assert [path.name for path in (tmp_path / "count").iterdir()] == ["mine.txt"]


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


@dataclass(frozen=True)
class Wait(Stage):
    """Runs for as long as there is a file called ``wait``."""

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        print("ready", flush=True)
        while (context.out / "wait").exists():
            time.sleep(0.05)
        return {}


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    code = "from tests.training.engine.test_run import *; run_stages({'held': Wait()}, Context(out=Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "running" in process.stdout.readline() and process.stdout.readline() == "ready\n"
        with pytest.raises(OSError, match="another process is at work"):
            run_stages({"held": Wait()}, Context(out=tmp_path))
        process.kill()
    (tmp_path / "wait").unlink()
    assert run_stages({"held": Wait()}, Context(out=tmp_path))["held"].exists()


def test_the_engine_does_without_what_only_unix_has() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import training.engine.run, training.engine.sweep; print('done')"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "done\n", found.stderr
