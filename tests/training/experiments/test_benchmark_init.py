import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.engine.records import read_done, read_metrics
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.benchmark_init import BenchmarkInit
from training.experiments.compare_inits import benchmark_table
from training.experiments.paired import best_rates
from training.images.augment import moved
from training.images.sets import Images
from training.networks.loop import Step
from training.starts.base import spatial_convolutions

ARMS = ("Kaiming", "white noise", "dwp")
SMALL = BenchmarkInit(
    network="convmixer",
    filters=(4,),
    priors=("notmnist-7x7",),
    inits=ARMS,
    seeds=2,
    rates=(1e-3, 1e-1),
    rate_seeds=1,
    hold_out=10,
    batch_size=8,
    marks=(1, 3),
)


def _images(n: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(images, torch.arange(n) % 2, {"name": "cifar10", "seed": seed})


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> dict[str, Images]:
    """50 images of two classes to train with and 20 for the test, in place of CIFAR-10; may be replaced."""
    data = {"train": _images(50, 0), "test": _images(20, 1)}
    monkeypatch.setattr(Context, "images", lambda context, name, split: data[split])
    return data


def _made(out: Path, **settings: Any) -> tuple[BenchmarkInit, Any]:
    """A stage with other settings, and what it reads."""
    stage = replace(SMALL, **settings)
    return stage, stage.parts(Context(out=out))


def _nothing(*_: object) -> None:
    pass


def _row(init: str, seed: int, accuracy: list[float], rate: float = 0.1) -> dict[str, Any]:
    at_start = {"channel_rank": 2.0 + seed, "channel_rank_last": 1.0, "scale_min": 0.5, "scale_max": 2.0}
    return {"init": init, "seed": seed, "rate": rate, "accuracy": accuracy, **at_start}


def test_the_summary_pairs_seeds() -> None:
    rows = [
        *(_row("Kaiming", seed, accuracy) for seed, accuracy in enumerate([[10.0, 30.0, 50.0], [20.0, 40.0, 70.0]])),
        *(_row("dwp", seed, accuracy) for seed, accuracy in enumerate([[20.0, 51.0, 49.0], [24.0, 73.0, 71.0]])),
        *(_row("Xavier", seed, accuracy) for seed, accuracy in enumerate([[9.0, 12.0, 15.0], [9.0, 12.0, 17.0]])),
    ]
    table = {(row["init"], row["step"]): row for row in benchmark_table(rows, (10, 20, 40))}
    first, last = table["dwp", 10], table["dwp", 40]
    assert (first["accuracy"], first["sd"], first["seeds"]) == (22.0, round(math.sqrt(8), 3), 2)
    half_width = 12.7062 * math.sqrt(18) / math.sqrt(2)  # differences 10 and 4
    assert (first["over_kaiming"], first["over_kaiming_95"]) == (7.0, pytest.approx(half_width, abs=2e-3))
    assert (last["over_kaiming"], last["ahead_of_kaiming"], last["reached"]) == (0.0, 1, 2)
    assert first["steps_to_kaiming"] == pytest.approx(10 + 10 * (60 - 22) / (62 - 22))  # Kaiming ends at 60
    assert (first["channel_rank"], first["scale_min"], first["rate"]) == (2.5, 0.5, 0.1)
    assert (table["Kaiming", 10]["steps_to_kaiming"], table["Kaiming", 10]["over_kaiming_95"]) == (40.0, 0.0)
    assert (table["Xavier", 10]["steps_to_kaiming"], table["Xavier", 10]["reached"]) == ("", 0)


def test_one_seed_has_no_spread() -> None:
    (row,) = benchmark_table([_row("Kaiming", 0, [10.0])], (5,))
    assert row["sd"] == row["over_kaiming_95"] == ""


def test_only_spatial_kernels_differ_between_the_runs_of_a_seed(tmp_path: Path) -> None:
    stage, parts = _made(tmp_path)
    networks = [stage.untrained(parts, init, 5).state_dict() for init in ARMS]
    for name, value in networks[0].items():
        same = all(torch.equal(value, other[name]) for other in networks[1:])
        assert same == (not name.endswith(("depthwise.weight", "stem.0.weight")))


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_convolutions_stay(tmp_path: Path, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, untrained = [], BenchmarkInit.untrained
    monkeypatch.setattr(BenchmarkInit, "untrained", lambda *given: made.append(untrained(*given)) or made[-1])
    stage, parts = _made(tmp_path, frozen=frozen)
    stage.train_one(parts, ("Kaiming", 0, 0.1, False), _nothing)
    before, after = untrained(stage, parts, "Kaiming", 0), made[0]
    spatial = spatial_convolutions(after)
    for name, value in before.named_parameters():
        fixed = frozen and name.rpartition(".")[0] in spatial
        assert torch.equal(value, after.get_parameter(name)) == fixed, name


def test_runs_are_reproducible_and_tell_how_they_began(tmp_path: Path) -> None:
    (stage, parts), steps = _made(tmp_path), []
    (row,), again = (stage.train_one(parts, ("dwp", 3, 0.01, False), steps.append) for _ in range(2))
    assert again == [row] and sum(steps) == 6
    assert [row[key] for key in ("init", "seed", "rate", "choosing")] == ["dwp", 3, 0.01, False]
    assert len(row["accuracy"]) == 2 and 1 <= row["channel_rank"] <= 4 and 0 < row["scale_min"] <= row["scale_max"]
    (choosing,) = stage.train_one(parts, ("dwp", 3, 0.01, True), _nothing)
    assert len(choosing["accuracy"]) == 1 and "channel_rank" not in choosing


def test_rates_are_chosen_on_images_that_are_never_trained_on(tmp_path: Path, data: dict[str, Images]) -> None:
    parts = _made(tmp_path)[1]
    images, test = data["train"].images / 255, data["test"].images / 255
    assert torch.equal(parts.train[0], images[:40]) and torch.equal(parts.held_out[0], images[40:])
    assert torch.equal(parts.test[0], test) and torch.equal(parts.held_out[1], data["train"].labels[40:])
    rates = []
    for seed in (1, 2):
        data["test"] = _images(20, seed)
        folder = run_stages({"b": SMALL}, Context(out=tmp_path / str(seed)))["b"]
        rates.append([row for row in read_metrics(folder) if row["choosing"]])
    assert rates[0] == rates[1] and len(rates[0]) == 2 * len(ARMS)


def test_each_image_is_seen_once_a_pass(tmp_path: Path) -> None:
    stage, parts = _made(tmp_path, marks=(10,))
    batches = stage.batches(parts, 0)
    assert batches.shape == (10, 8, 4)
    for part in batches[..., 0].flatten().split(40):
        assert torch.equal(part.sort().values, torch.arange(40))
    assert not torch.equal(batches, stage.batches(parts, 1))


def test_few_labels_are_as_many_of_every_class(tmp_path: Path) -> None:
    stage, parts = _made(tmp_path, labels=6)
    places, labels = stage.places(parts, 0), parts.train[1]
    assert len(set(places.tolist())) == 6 and labels[places].bincount().tolist() == [3, 3]
    assert not torch.equal(places, stage.places(parts, 1))
    assert set(stage.batches(parts, 0)[..., 0].flatten().tolist()) == set(places.tolist())
    assert stage.batches(parts, 0).shape == (3, 6, 4)  # a batch is no larger than the set


def test_augmentation_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        "training.experiments.benchmark_init.moved", lambda images, *moves: calls.append(1) or moved(images, *moves)
    )
    rows = []
    for augment in (False, True):
        stage, parts = _made(tmp_path, augment=augment)
        rows += stage.train_one(parts, ("Kaiming", 0, 0.1, True), _nothing)
        assert len(calls) == 3 * augment
    assert rows[0]["rate"] == rows[1]["rate"]


def test_the_rate_decays_linearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    call = Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda step, batch, lr: rates.append(lr) or call(step, batch, lr))
    stage, parts = _made(tmp_path)
    stage.train_one(parts, ("Kaiming", 0, 0.3, True), _nothing)
    assert rates == pytest.approx([0.3, 0.2, 0.1])


@pytest.mark.parametrize("kept", [4, 9])
def test_an_interrupted_stage_trains_what_is_missing(tmp_path: Path, resumed: Any, kept: int) -> None:
    first, then = resumed(SMALL, kept)
    assert [choosing for *_, choosing in first] == [True] * 6 + [False] * 6 and then == first[kept:]


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [
        read_done(run_stages({"b": SMALL}, Context(out=tmp_path / str(workers), workers=workers))["b"])["table"]
        for workers in (1, 2)
    ]
    keys = ("init", "rate", "step", "seeds")
    assert [[row[key] for key in keys] for row in tables[0]] == [[row[key] for key in keys] for row in tables[1]]
    for one, other in zip(*tables, strict=True):
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=10)  # other numbers of threads


def test_what_is_recorded(tmp_path: Path) -> None:
    folder = run_stages({"b": SMALL}, Context(out=tmp_path))["b"]
    record = folder / "record"
    names = {f"benchmark_init{end}" for end in (".csv", "_runs.csv", "_rates.csv", ".png")}
    assert {path.name for path in record.iterdir()} == names

    def read(name: str) -> list[dict[str, str]]:
        with (record / name).open(newline="") as file:
            return list(csv.DictReader(file))

    rows = read_metrics(folder)
    assert [(row["init"], row["step"]) for row in read("benchmark_init.csv")] == [
        (init, step) for init in ARMS for step in ("1", "3")
    ]
    flat = {(row["init"], row["seed"], row["step"]): float(row["accuracy"]) for row in read("benchmark_init_runs.csv")}
    runs = [row for row in rows if not row["choosing"]]
    assert flat == {
        (row["init"], str(row["seed"]), step): value
        for row in runs
        for step, value in zip(("1", "3"), row["accuracy"], strict=True)
    }
    tried = read("benchmark_init_rates.csv")
    assert [float(row["accuracy"]) for row in tried] == [row["accuracy"][0] for row in rows if row["choosing"]]
    best = best_rates([row for row in rows if row["choosing"]])
    assert {row["init"]: row["rate"] for row in runs} == best


def test_every_initialisation_that_can_be_made_is_compared_by_default() -> None:
    """Starts that keep the scale of their source are compared only where they are named."""
    controls = ("PyTorch default", "Kaiming", "Xavier", "orthogonal", "delta-orthogonal", "white noise", "LSUV")
    learned = ("empirical Gaussian", "learned kernels")
    priors = ("dwp", "dwp, orthogonal", "dwp, centred", "dwp, LSUV", "natural, keep", "natural, fan_in")
    assert BenchmarkInit().arms == controls
    assert BenchmarkInit(priors=("notmnist-7x7",)).arms == controls + priors
    assert BenchmarkInit(needs=("kernels",)).arms == controls + learned
    assert BenchmarkInit(needs=("kernels",), priors=("notmnist-7x7",)).arms == controls + learned + priors
    assert BenchmarkInit(inits=("Kaiming", "dwp, prior's scale")).arms == ("Kaiming", "dwp, prior's scale")


def test_learned_kernels_come_from_stages_by_kind_size_and_depth(tmp_path: Path, save_kernels: Any) -> None:
    for place, name in enumerate(("first", "last")):
        save_kernels(tmp_path / name, 7, n=20 + place)
    learned = {"needs": ("first", "last"), "kinds": ("depthwise",) * 2, "depths": (0.0, 1.0)}
    stage, parts = _made(tmp_path, **learned, inits=("Kaiming", "learned kernels", "empirical Gaussian"))
    assert parts.learned.keys() == {("depthwise", 7)} and len(parts.learned["depthwise", 7][1.0]) == 21
    assert len(stage.run(tmp_path / "first", Context(tmp_path))["table"]) == 6
    with pytest.raises(ValueError, match=r"has .*depthwise 7×7 kernels, the learned ones are dense 7×7"):
        stage.untrained(_made(tmp_path, **learned | {"kinds": ("dense",) * 2})[1], "learned kernels", 0)
    with pytest.raises(ValueError, match="last is the second stage with depthwise 7×7 kernels of depth 0"):
        _made(tmp_path, **learned | {"depths": (0.0, 0.0)})
    with pytest.raises(ValueError, match=r"each kernels stage needs .* depth from 0 to 1; got .* depths=\(0.0, 1.5\)"):
        replace(SMALL, **learned | {"depths": (0.0, 1.5)}).run(tmp_path, Context(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"rate_seeds": 0}, "rate_seeds must be 1 or more; got 0"),
        ({"hold_out": 0}, "hold_out must be 1 or more; got 0"),
        ({"hold_out": 50}, "hold_out must leave some of 50 training images; got 50"),
        ({"marks": (3, 1)}, r"marks must be steps from 1 up, each once and in order; got \(3, 1\)"),
        ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16'; got 'float16'"),
        ({"rates": ()}, r"rates must be positive learning rates, each once; got \(\)"),
        ({"rates": (0.1, 0.1)}, r"rates must be positive learning rates, each once; got \(0.1, 0.1\)"),
        ({"first_rate_seed": 1}, "the 1 seeds from first_rate_seed=1, .* others than the 2 from first_seed=0"),
        ({"inits": ("dwp",)}, r"inits must contain Kaiming, .*; got \('dwp',\)"),
        ({"inits": ("Kaiming", "Kaiming")}, "inits must be some of .*, each once; got Kaiming; Kaiming"),
        ({"inits": ("Kaiming", "He")}, "inits must be some of PyTorch default; .*; got Kaiming; He"),
        ({"priors": ()}, "dwp cannot be drawn from nothing: name priors="),
        (
            {"inits": ("Kaiming", "learned kernels")},
            "learned kernels cannot be drawn from nothing: name kernels stages",
        ),
        ({"kinds": ("dense",)}, r"each kernels stage needs its kind, dense or depthwise, .* kinds=\('dense',\)"),
        ({"network": "lenet"}, "unknown network 'lenet'; there are mnist, cifar"),
        ({"network": "vgg", "filters": (4, 4)}, "no layer can be initialised: 'notmnist-7x7' is for 7×7 kernels"),
        ({"labels": 5}, "a stratified set must have a multiple of 2 images, .* at most 20 of each class; got 5"),
        ({"labels": 42}, "a stratified set must have a multiple of 2 images, .* at most 20 of each class; got 42"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages({"b": replace(SMALL, **settings)}, Context(out=tmp_path))
    assert not (tmp_path / "b" / "metrics.jsonl").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("frozen", [False, True])
def test_recorded_steps_find_what_eager_ones_do(tmp_path: Path, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"frozen": frozen, "augment": True, "marks": (10, 20), "inits": ("Kaiming", "dwp")}
    stage = replace(SMALL, **settings)
    parts = stage.parts(Context(out=tmp_path, device=torch.device("cuda")))
    (recorded,) = stage.train_one(parts, ("dwp", 0, 1e-2, False), _nothing)
    monkeypatch.setattr("training.networks.loop.Step.eager_steps", 1000)
    (eager,) = stage.train_one(parts, ("dwp", 0, 1e-2, False), _nothing)
    assert recorded["accuracy"] == pytest.approx(eager["accuracy"], abs=10)
