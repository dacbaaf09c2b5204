import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from training.engine.records import Row, read_done, read_table
from training.engine.run import run_stages
from training.engine.stage import Context
from training.engine.workers import Processes
from training.experiments import benchmark, benchmark_task
from training.experiments.benchmark import CHOOSING_SEED, Benchmark
from training.experiments.benchmark_task import RUN, BenchmarkTask
from training.networks.registry import NETWORKS
from training.starts.base import KAIMING
from training.starts.controls import OTHER_DRAWS, OWN

SMALL: dict[str, Any] = {"name": "bench_task", "network": "resnet(blocks=1, stride=2)", "filters": (4,), "steps": 2}
SMALL |= {"trials": 2, "hold_out": 10, "batch_size": 5, "marks": 2, "seeds": 2, "finalists": 1}
SMALL |= {"starts": (OWN, KAIMING, OTHER_DRAWS)}
TIMES = ("init_s", "train_s")
Trained = list[tuple[Any, ...]]

pytestmark = pytest.mark.usefixtures("data")


def stage(**fields: Any) -> Benchmark:
    return Benchmark(**SMALL | fields)


def run(made: Benchmark, out: Path, **context: Any) -> Path:
    return run_stages({"task": made}, Context(out, **context))["task"]


def runs_of(folder: Path, *, timed: bool = True) -> list[Row]:
    lines = (folder / "record" / "bench_task_runs.jsonl").read_text().splitlines()
    left_out = () if timed else TIMES
    return [{key: value for key, value in json.loads(line).items() if key not in left_out} for line in lines]


def recorded(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "record").iterdir()}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Start, seed, trial and whether it was to choose, of each network that is trained."""
    found: Trained = []
    run_one = Benchmark.run_one
    monkeypatch.setattr(Benchmark, "run_one", lambda *given: found.append(given[2][2:]) or run_one(*given))
    return found


def test_settings_are_screened_and_the_finalists_compared_on_other_seeds(tmp_path: Path, trained: Trained) -> None:
    made = stage(trials=3, finalists=2)
    folder = run(made, tmp_path)
    screened = {(start, CHOOSING_SEED, trial) for start in SMALL["starts"] for trial in range(3)}
    assert len(trained) == 9 + 12 and {each[:3] for each in trained[:9] if each[3]} == screened
    order = [(start, seed) for seed in (0, 1) for start in SMALL["starts"]]
    assert [each[:2] for each in trained[9:]] == [each for each in order for _ in range(2)]
    rows = runs_of(folder)
    assert rows == sorted(rows, key=lambda row: (not row["choosing"], row["start"], row["seed"], row["trial"]))
    keys = {"task", *RUN, "held_accuracy", "held_log_loss", "init_s", "train_s", "drawn"}
    paired = {"accuracy", "log_loss", "curve", "curve_loss"}
    assert all(row.keys() == keys | (set() if row["choosing"] else paired) for row in rows)
    finalists, chosen = made.finalists_of(rows), {row["start"]: row["trial"] for row in made.compared(rows)}
    assert all((start, seed, trial, False) in trained for start, seed in order for trial in finalists[start])
    table = read_table(folder / "record" / "bench_task.csv")
    assert [row["start"] for row in table] == [OWN, OTHER_DRAWS, KAIMING] and {row["seeds"] for row in table} == {"2"}
    own, kaiming = table[0], table[2]
    assert own["over_own"] == own["p_own"] == "" == kaiming["over_kaiming"]
    assert own["over_kaiming"] and float(own["over_kaiming"]) == -float(kaiming["over_own"])
    of_it = {"start": KAIMING, "choosing": False, "trial": chosen[KAIMING]}
    finals = [row for row in rows if of_it.items() <= row.items()]
    assert float(kaiming["accuracy"]) == pytest.approx(sum(row["accuracy"] for row in finals) / 2, abs=1e-3)
    assert float(kaiming["lr"]) == made.settings[chosen[KAIMING]].rate
    assert [str(row["accuracy"]) for row in read_done(folder)["table"]] == [row["accuracy"] for row in table]


def test_all_runs_are_judged_by_held_out_images_and_paired_ones_by_test_images_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    scores = BenchmarkTask.scores
    monkeypatch.setattr(
        BenchmarkTask, "scores", lambda task, network, part: sizes.append(len(part[1])) or scores(task, network, part)
    )
    run(stage(starts=(OWN,), seeds=1, curve_images=15), tmp_path)
    assert sizes == [10, 10, 15, 15, 10, 30]  # two trials; two marks, and the end


def test_more_starts_and_seeds_add_runs_only(tmp_path: Path, trained: Trained) -> None:
    folder = run(stage(starts=(OWN, KAIMING), seeds=1), tmp_path)
    before = runs_of(folder)
    assert len(trained) == 4 + 2
    trained.clear()
    run(stage(starts=(OWN, KAIMING), seeds=1), tmp_path)
    assert trained == []
    run(stage(starts=(OWN, KAIMING), seeds=3, role="confirm"), tmp_path)
    assert [(start, seed) for start, seed, _, _ in trained] == [(s, seed) for seed in (1, 2) for s in (OWN, KAIMING)]
    trained.clear()
    run(stage(seeds=3), tmp_path)
    assert [start for start, *_ in trained] == [OTHER_DRAWS] * 5
    assert all(row in runs_of(folder) for row in before)
    assert {row["start"]: row["seeds"] for row in read_table(folder / "record" / "bench_task.csv")}[OTHER_DRAWS] == "3"


def test_more_finalists_add_their_runs_and_all_held_out_images_choose(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([50.0, 40.0, 30.0, 7.0, 50.0])  # two trials that screen; a mark, held-out and test images of the first
    monkeypatch.setattr(BenchmarkTask, "scores", lambda *given: (next(found), 1.0))
    fields: dict[str, Any] = {"starts": (OWN,), "seeds": 1, "marks": 1}
    run(stage(**fields), tmp_path)
    (first,) = read_table(tmp_path / "task" / "record" / "bench_task.csv")
    assert (first["accuracy"], float(first["lr"])) == ("50.0", stage().settings[0].rate)
    found = iter([45.0, 90.0, 8.0])  # a mark, held-out and test images of the second
    trained.clear()
    folder = run(stage(**fields, finalists=2), tmp_path)
    assert trained == [(OWN, 0, 1, False)]
    (now,) = read_table(folder / "record" / "bench_task.csv")
    assert (now["accuracy"], float(now["lr"]), now["seeds"]) == ("8.0", stage().settings[1].rate, "1")
    assert len(runs_of(folder)) == 4  # those of the first stay


def test_runs_of_record_count_as_done(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    record = recorded(run(stage(), tmp_path / "one"))
    monkeypatch.setattr(benchmark_task, "RESULTS", tmp_path / "one" / "task" / "record")
    trained.clear()
    assert recorded(run(stage(), tmp_path / "two", from_record=True)) == record and trained == []
    run(stage(seeds=3), tmp_path / "three", from_record=True)
    assert [seed for _, seed, *_ in trained] == [2, 2, 2]
    trained.clear()
    assert recorded(run(stage(), tmp_path / "four")).keys() == record.keys() and len(trained) == 12
    trained.clear()
    run(stage(steps=3), tmp_path / "five", from_record=True)  # another setting
    assert len(trained) == 12
    trained.clear()
    monkeypatch.setattr(Benchmark, "setting", lambda *given: "that of another device")
    with pytest.raises(
        ValueError, match=r"all 12 runs in .*bench_task_runs\.jsonl were made otherwise than they would"
    ):
        run(stage(), tmp_path / "six", from_record=True)
    assert trained == []


@pytest.mark.parametrize("after", [0, 1, 6, 9])
def test_an_interrupted_task_leaves_what_it_has_and_resumes_to_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = runs_of(run(stage(), tmp_path / "whole"), timed=False)
    run_one = Benchmark.run_one
    calls: list[int] = []

    def interrupted(*given: Any) -> list[Row]:
        calls.append(1)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return run_one(*given)

    monkeypatch.setattr(Benchmark, "run_one", interrupted)
    results = tmp_path / "results"
    results.mkdir()
    (results / "bench_task_runs.jsonl").write_text("of record\n")
    with pytest.raises(KeyboardInterrupt):
        run_stages({"task": stage()}, Context(tmp_path / "cut"), results)
    folder = tmp_path / "cut" / "task"
    if after:
        assert [row for row in whole if row in runs_of(folder, timed=False)] == runs_of(folder, timed=False)
        assert len(runs_of(folder)) == after
        assert (results / "bench_task_runs.jsonl").read_bytes() == recorded(folder)["bench_task_runs.jsonl"]
    else:
        assert (results / "bench_task_runs.jsonl").read_text() == "of record\n"
    assert (folder / "record" / "bench_task.csv").exists() == (after == 9)
    run(stage(), tmp_path / "cut")
    assert runs_of(folder, timed=False) == whole and len(calls) == 12 + 1


def test_a_start_whose_source_changed_is_trained_again_alone(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(stage(), tmp_path)
    before = {json.dumps(row) for row in runs_of(folder) if row["start"] != KAIMING}
    source = Benchmark.source
    monkeypatch.setattr(
        Benchmark, "source", lambda made, start, folder: "new" if start == KAIMING else source(made, start, folder)
    )
    trained.clear()
    run(stage(), tmp_path)
    assert [start for start, *_ in trained] == [KAIMING] * 4
    rows = runs_of(folder)
    assert {row["source"] for row in rows if row["start"] == KAIMING} == {"new"}
    assert {json.dumps(row) for row in rows if row["start"] != KAIMING} == before


def test_another_rule_of_choice_trains_only_what_it_chooses_otherwise(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(trial: int) -> None:
        finalists = {start: [trial if start == KAIMING else 0] for start in SMALL["starts"]}
        monkeypatch.setattr(benchmark, "rule", lambda: str(trial))
        monkeypatch.setattr(benchmark, "finalists_of", lambda rows, **counts: finalists if rows else {})

    choose(0)
    run(stage(), tmp_path)
    trained.clear()
    choose(1)
    folder = run(stage(), tmp_path)
    assert trained == [(KAIMING, seed, 1, False) for seed in (0, 1)]
    rates = {row["start"]: float(row["lr"]) for row in read_table(folder / "record" / "bench_task.csv")}
    assert rates[KAIMING] == stage().settings[1].rate and rates[OWN] == stage().settings[0].rate
    assert len([row for row in runs_of(folder) if not row["choosing"]]) == 6 + 2  # those before stay


def test_workers_train_the_same_networks(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"starts": (OWN, KAIMING), "trials": 1}
    one, two = (runs_of(run(stage(**fields), tmp_path / str(n), engine=Processes(n))) for n in (1, 2))
    assert [[row[key] for key in (*RUN, "held_accuracy")] for row in one] == [
        [row[key] for key in (*RUN, "held_accuracy")] for row in two
    ]
    assert [row["held_log_loss"] for row in one] == pytest.approx([row["held_log_loss"] for row in two], abs=1e-4)


class Diverging(nn.Module):
    """Its logits are no numbers where its kernels are as large as Kaiming's."""

    def __init__(self, filters: tuple[int, ...], classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(image_shape[0], classes, 3)

    def forward(self, x: Any) -> Any:
        return self.layer(x).mean((2, 3)) * (math.nan if self.layer.weight.std() > 0.3 else 1.0)


def test_a_run_that_diverges_is_recorded_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    monkeypatch.setitem(NETWORKS, "diverging", Diverging)
    made = stage(network="diverging", filters=(1,), starts=(OWN, KAIMING))
    folder = run(made, tmp_path)
    lost = [row for row in runs_of(folder) if math.isnan(row["held_log_loss"])]
    assert {row["start"] for row in lost} == {KAIMING} and len(lost) == 2 + 2
    own, kaiming = read_table(folder / "record" / "bench_task.csv")
    assert (kaiming["diverged"], kaiming["log_loss"], kaiming["loss_over_own"]) == ("2", "", "")
    assert float(kaiming["accuracy"]) == 10.0 and own["log_loss"] and kaiming["over_own"]
    trained.clear()
    monkeypatch.setattr(benchmark_task, "RESULTS", folder / "record")
    assert recorded(run(made, tmp_path / "again", from_record=True)) == recorded(folder) and trained == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"starts": (KAIMING,)}, r"starts must contain 'own', which the others are compared with; got \('Kaiming',\)"),
        ({"starts": (OWN, "Kaimin")}, "each name must be one of a start, given once; got Kaimin; there are own; "),
        ({"starts": (OWN, "PyTorch default")}, "given once; got own; PyTorch default; there are"),
        ({"starts": (OWN, "natural"), "priors": ()}, "name priors="),
        ({"finalists": 0}, "finalists must be 1 or more; got 0"),
        ({"seeds": CHOOSING_SEED + 1}, "seed 1000 screens the settings; got 1001 paired ones"),
        ({"role": "both"}, "role must be one of choose, confirm; got 'both'"),
        ({"marks": 3}, "marks must be at most the number of steps, 2; got 3"),
    ],
)
def test_settings_that_make_no_task_are_refused(
    tmp_path: Path, trained: Trained, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(stage(**fields), tmp_path)
    assert trained == []


def test_what_cannot_be_drawn_is_refused_before_anything_is_trained(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(FileNotFoundError, match=r"master_filters\.txt"):
        run(stage(starts=(OWN, "master filters")), tmp_path, data_root=tmp_path)
    with pytest.raises(ValueError, match="resnet has no argument 'kernel'"):
        run(stage(network="resnet(kernel=5)"), tmp_path)
    assert trained == []
