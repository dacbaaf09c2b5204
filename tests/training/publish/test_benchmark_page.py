"""The page of the benchmark says what is on record, and no more."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.publish.example_runs import example_runs, example_task, record
from training.engine.ledger import write_runs
from training.engine.records import write_table
from training.experiments.benchmark import Benchmark
from training.experiments.benchmark_check import BenchmarkCheck
from training.publish import benchmark_page, benchmark_record
from training.publish.benchmark_page import page_values, read_tasks
from training.publish.benchmark_questions import QUESTIONS, Question, answers
from training.publish.templates import render
from training.recipes import benchmark

AHEAD = example_task("bench_few_cifar10_vgg")
DEPTHWISE = example_task("bench_full_convmixer", network="convmixer(blocks=3, patch=4)", filters=(4,), each=0)
CONFIRM = example_task("bench_confirm", role="confirm", network="mnist", filters=(4, 4), data="fashionmnist")
CHECK = BenchmarkCheck(name="bench_check", network="vgg", filters=(4, 4), each=50)
COMMAND = "python -m training run benchmark --only {} --data-root DATA --workers 2 --from-record --record"


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are read from, and a recipe of two tasks that choose, one that confirms, and the check."""
    monkeypatch.setattr(benchmark_record, "RESULTS", tmp_path)
    stages = {stage.name: stage for stage in (CHECK, AHEAD, DEPTHWISE, CONFIRM)}
    monkeypatch.setattr(benchmark, "stages", lambda: stages)
    return tmp_path


def written() -> str:
    return render("benchmark.md.jinja", **page_values())


def cells(text: str, begins: str) -> list[str]:
    """The cells of the first line of a table that begins like this."""
    return next(line for line in text.splitlines() if line.startswith(f"| {begins}"))[2:-2].split(" | ")


def test_without_runs_there_is_nothing_to_say_and_all_commands_are_there() -> None:
    text = written()
    assert "0 of 2 tasks that may choose a start are finished. Nothing is confirmed yet: none of the 1 task" in text
    assert "There is nothing to say yet on which start to use." in text and "Points of test accuracy over" not in text
    assert all(f"\n{COMMAND.format(stage.name)}\n" in text for stage in (AHEAD, DEPTHWISE, CONFIRM))
    assert "Not run yet: `python -m training run benchmark --only bench_check" in text
    assert "Comparisons of two starts" not in text and ".png" not in text and "\n\n\n" not in text


def test_a_start_that_is_ahead_is_the_one_to_use(results: Path) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0, "Kaiming": -1.0, "whitened stem": 3.0}))
    record(results, DEPTHWISE, example_runs(DEPTHWISE, {"natural": -2.0})[:-1])
    text = written()
    assert "1 of 2 tasks that may choose a start is finished; 1 unfinished one does not count yet." in text
    summary = cells(text, "dense, without normalisation | few labels")
    assert summary[2:] == [
        "**`natural`**",
        "+2.0 (1 / 0 / 0; 3 : 0)",
        "+3.0",
        "×0.96",
        "not run",
        "+2.0 (1 / 0 / 0; 3 : 0)",
        "whitened stem +3.0 (1 / 0 / 0; 3 : 0), `natural` there +2.0",
    ]
    assert "| depthwise, normalised |" not in text
    assert (
        "*Few labels* are 50 images a class; *all labels* and *frozen kernels* are the beginning of a training, at"
        in text
    )
    assert "it is ahead in 0, level in 0 and behind in 1 of 1 task" in text
    assert "Its interval over the model's own start is below 0 in no finished task." in text
    assert f"\n1 of 32 runs are missing: `{COMMAND.format('bench_full_convmixer')}`.\n" in text
    assert "The 63 runs on record, those too that only chose settings, took 0.159 hours of CPU time" in text
    assert "](benchmark.png)" in text and "\n\n\n" not in text


@pytest.mark.parametrize(
    ("kaiming", "named"),
    [(1.0, "**`natural`**"), (2.05, "**`natural`**"), (4.0, "**`Kaiming`**")],
    ids=["behind natural", "level with it", "ahead of it"],
)
def test_another_start_is_named_only_if_it_is_ahead_of_natural_too(results: Path, kaiming: float, named: str) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0, "Kaiming": kaiming}))
    assert cells(written(), "dense, without normalisation | few labels")[2] == named


def test_a_start_that_is_surely_ahead_is_named_before_one_of_more_points_that_is_not(results: Path) -> None:
    task = example_task("bench_few_cifar10_vgg", starts=("own", "Kaiming", "Xavier", "natural"), seeds=8)
    stages = {stage.name: stage for stage in (task, CONFIRM)}
    rows = example_runs(task, {"natural": 2.0, "Kaiming": 4.0, "Xavier": 3.9})
    for row in rows:
        if row["start"] == "Kaiming" and not row["choosing"]:
            row["accuracy"] += 3.6 * (-1) ** row["seed"]
    record(results, task, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "stages", lambda: stages)
        (row,) = page_values()["uses"]
    assert row["best"].start == "Xavier"


def test_the_best_yardstick_is_best_in_the_tasks_that_all_were_run_in_and_not_natural(results: Path) -> None:
    starts = ("own", "Kaiming", "natural", "natural-v1", "whitened stem")
    easy = example_task("bench_few_tiny", data="tinyimagenet32-a[0:20]", starts=starts)
    hard = example_task("bench_few_cifar10_vgg", starts=starts)
    benchmark.stages().update({each.name: each for each in (easy, hard)})
    record(results, hard, example_runs(hard, {"natural": 2.0, "natural-v1": 2.0, "whitened stem": 1.0}))
    record(results, easy, example_runs(easy, {"natural": 9.0, "natural-v1": 6.0, "whitened stem": 7.0}))
    found = cells(written(), "dense, without normalisation | few labels")[-1]
    assert (
        found == "whitened stem +4.0 (2 / 0 / 0; 6 : 0), `natural` there +5.5"
    )  # natural-v1 has seen the images of one of the two


def test_what_the_draws_behind_the_stem_are_worth(results: Path) -> None:
    starts = ("own", "natural", "natural, noise behind the stem", "whitened stem")
    mixer = example_task("bench_few_cifar10_convmixer", network="convmixer", filters=(4,), starts=starts)
    starts = ("own", "natural", "natural, dense drawn", "whitened stem")
    chain = example_task("bench_few_cifar10_vgg", starts=starts)
    resnet = example_task("bench_few_tiny_resnet", network="resnet", filters=(4, 4), starts=starts)
    benchmark.stages().update({each.name: each for each in (chain, mixer, resnet)})
    record(results, mixer, example_runs(mixer, {"natural": 4.0, "natural, noise behind the stem": 2.0}))
    standing = "it is ahead in 1, level in 0 and behind in 0 of 1 task."
    assert f"are compared with white noise of the same response: {standing}" in written()
    assert "It draws no dense layers" not in written() and "nothing but the stem" not in written()
    for place, task in enumerate((chain, resnet)):
        record(results, task, example_runs(task, {"natural": 4.0, "natural, dense drawn": 4.0 + place}))
    drawn = "It draws no dense layers: compared with drawing them too it is ahead in 0, level in 1 and behind in 1 of 2"
    assert drawn in written() and "; in 1 of these it changes nothing but the stem.\n" in written()


def test_what_no_task_can_confirm_says_so(results: Path) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    column = ["not run", "no task can"]
    for stage in (CONFIRM, example_task("bench_confirm", role="confirm", network="resnet", data="fashionmnist")):
        benchmark.stages()[CONFIRM.name] = stage
        assert cells(written(), "dense, without normalisation | few labels")[6] == column.pop(0)


def test_a_confirmation_that_is_not_complete_says_how_many_of_its_tasks_were_run(results: Path) -> None:
    other = example_task("bench_confirm_too", role="confirm", network="mnist", filters=(4, 4), data="notmnist")
    benchmark.stages()[other.name] = other
    for task in (AHEAD, CONFIRM):
        record(results, task, example_runs(task, {"natural": 2.0}))
    found = cells(written(), "dense, without normalisation | few labels")[6]
    assert found == "not yet: 1 of 2 tasks run, ahead there (+2.0)"


def test_how_the_settings_were_chosen_and_how_wide_the_intervals_are(results: Path) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    text = written()
    rates = ", ".join(f"{rate} / {decay}" for rate, decay in AHEAD.settings)
    assert f"as learning rate / weight decay:\n{rates}. One run" in text
    assert "Of 4 starts 0 took the highest learning rate and 4 the lowest; one beyond might suit them better." in text
    assert "3 of 3 intervals of *few labels* are within ± 1.0 points, as they were meant to be." in text
    assert "settings chosen on 5,000 held-out images" in text and "intervals of *all labels*" not in text


def test_losses_stand_with_the_wins(results: Path) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    record(results, DEPTHWISE, example_runs(DEPTHWISE, {"natural": -2.0}))
    text = written()
    assert "over the model's own start is below 0 in these tasks: bench_full_convmixer (-2.0 ± 0.4).\n" in text
    assert cells(text, "depthwise, normalised | all labels")[2:4] == ["the model's own start", ""]


@pytest.mark.parametrize(("over_own", "holds"), [(2.0, "yes"), (-2.0, "no: -2.0 (0 / 0 / 1; 0 : 3)")])
def test_confirmation_is_by_tasks_that_did_not_choose(results: Path, over_own: float, holds: str) -> None:
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    record(results, CONFIRM, example_runs(CONFIRM, {"natural": over_own}))
    text = written()
    assert (
        f"1 of 1 task kept to confirm it, with other networks and other data, is finished; their data: {CONFIRM.data}."
        in text
    )
    row = cells(text, "dense, without normalisation | few labels")
    assert (row[6], row[2]) == (holds, "**`natural`**" if holds == "yes" else "undecided (`natural`)")


def test_natural_is_summed_over_all_tasks_those_too_whose_data_it_has_seen(results: Path) -> None:
    seen = example_task("bench_few_tiny", data="tinyimagenet32-a[0:20]")
    benchmark.stages()["bench_few_tiny"] = seen
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    record(results, seen, example_runs(seen, {"natural": -3.0}))
    summary = cells(written(), "dense, without normalisation | few labels")
    assert summary[2:8] == [
        "**`natural`**",
        "+2.0 (1 / 0 / 0; 3 : 0)",
        "+2.0",
        "×0.96",
        "not run",
        "-0.5 (1 / 0 / 1; 3 : 3)",
    ]


def test_a_row_of_a_task_has_differences_ratios_and_what_its_source_has_seen(results: Path) -> None:
    seen = example_task("bench_few_tiny", data="tinyimagenet32-a[0:20]")
    benchmark.stages()["bench_few_tiny"] = seen
    rows = example_runs(seen, {"natural": 2.0})
    rows[-1]["log_loss"] = float("inf")
    record(results, seen, rows)
    text = written()
    row = cells(text, "**natural** †")
    assert row[1:4] == ["Tiny ImageNet (100 classes), ImageNet", "100", "52.1"]
    assert row[4].startswith("+2.0 ± 0.4 (3 : 0, p = 0.00") and row[9] == "enough"
    assert row[8] == "0.96 / 0.96"
    assert cells(text, "whitened stem")[6] == "1 diverged"
    assert [cells(text, "own |")[column] for column in (4, 6, 7, 8, 9)] == [""] * 5
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    assert "| **natural** | Tiny ImageNet (100 classes), ImageNet |" in written()


def test_a_longer_run_stands_on_the_page_if_it_is_of_the_setting_of_the_task(results: Path) -> None:
    stages = benchmark.stages()
    stages["long"] = benchmark_page.BenchmarkPlateau(name="long", of=AHEAD.name, steps=5000, seeds=4)
    record(results, AHEAD, example_runs(AHEAD, {"natural": 2.0}))
    source = stages["long"].source("natural", None)
    for trial, made_of, there in ((1, source, True), (0, source, False), (1, "older", False)):
        write_runs(results / "long_runs.jsonl", [{"start": "natural", "source": made_of}])
        lr, decay = AHEAD.settings[trial]
        own = {
            "start": "own",
            "lr": lr,
            "weight_decay": decay,
            "accuracy": 61.25,
            "seeds": 4,
            "over_own": "",
            "over_own_95": "",
        }
        seeds = {"wins_own": 3, "losses_own": 1}
        natural = {"start": "natural", "over_own": 1.5, "over_own_95": 0.7} | seeds
        write_table(results / "long.csv", [own | dict.fromkeys(seeds, ""), own | natural])
        text = written()
        said = "In 5,000 steps, on 4 seeds and at the same settings: own 61.2 %, natural 61.2 % (+1.5 ± 0.7)."
        assert (said in text) == there and "\n\n\n" not in text
        lasts = (
            "In 5,000 steps, at the settings that were chosen for fewer, it is +1.5 ± 0.7 points over the model's own"
        )
        assert (f"{lasts} start in `{AHEAD.name}` (3 : 1).\n- Its interval" in text) == there


def test_the_instrument_is_on_the_page(results: Path) -> None:
    columns = "chosen_by,finalists,false_positives,half_width,loss_false_positives,loss_half_width"
    (results / "bench_check.csv").write_text(f"{columns}\nlog_loss,2,0.045,0.8312,0.05,0.0213\n")
    assert cells(written(), "setting chosen by")[:2] == ["setting chosen by", "finalists"]
    assert cells(written(), "log loss | 2") == ["log loss", "2", "4.5 %", "0.831", "5.0 %", "0.0213"]


def test_questions_are_answered_where_both_starts_were_run_with_p_values_over_the_tasks(results: Path) -> None:
    for stage in (AHEAD, DEPTHWISE):
        record(results, stage, example_runs(stage, {"natural": 2.0}))
    tasks = read_tasks()
    alone = tasks[0].compare("natural", "Kaiming")["p"]
    found = answers(tasks, Question("", "natural", "Kaiming"))
    assert [row["task"] for row in found] == [AHEAD.name, DEPTHWISE.name]
    assert [row["p"] for row in found] == pytest.approx([2 * alone] * 2)
    assert [row["task"] for row in answers(tasks, Question("", "natural", "Kaiming", "depthwise"))] == [DEPTHWISE.name]
    assert answers(tasks, Question("", "natural", "dirac")) == []


def test_a_difference_of_a_start_from_itself_is_a_warning(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = example_task(starts=("own", "own, other draws", "Kaiming"))  # natural has no prior for some
    monkeypatch.setattr(benchmark, "stages", lambda: {twice.name: twice, CONFIRM.name: CONFIRM})
    for over, warned in ((0.0, False), (2.0, True)):
        record(results, twice, example_runs(twice, {"own, other draws": over}))
        assert (f"**In `{twice.name}` the model's own start differs from itself" in written()) == warned


def test_every_question_is_asked_of_some_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tasks = [stage for stage in benchmark.stages().values() if isinstance(stage, Benchmark)]
    for question in QUESTIONS:
        assert any({question.start, question.baseline} <= {*stage.starts} for stage in tasks), question.text


def test_pictures_are_drawn_once_there_are_runs(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(benchmark_page, "plot_tasks", lambda tasks, path, panels: drawn.append(path.name))
    benchmark_page.draw_pictures(results)
    assert drawn == []
    record(results, AHEAD, example_runs(AHEAD, {}))
    benchmark_page.draw_pictures(results)
    assert drawn == ["benchmark.png", "benchmark_target.png"]
