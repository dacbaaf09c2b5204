import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dwp_init import bayes, load_prior
from training.engine import ledger, sweep
from training.engine.ledger import read_runs
from training.engine.records import read_done, read_metrics
from training.engine.run import run_stages
from training.engine.stage import Context
from training.engine.workers import Processes
from training.experiments import classify
from training.experiments.classify import Classify, passes
from training.experiments.few_labels import (
    DETERMINISTIC,
    DWP_FIXED,
    DWP_PRIOR,
    DWP_SEMI_IMPLICIT,
    FROM_DWP,
    FROM_NATURAL,
    FROM_XAVIER,
    GAUSSIAN_PRIOR,
    LOG_UNIFORM,
    LOG_UNIFORM_AUTHORS,
    MIXTURE,
    NATURAL_PRIOR,
    NORMAL,
    NORMAL_BY_LAYER,
    PRIORS,
    STANDARD_NORMAL,
    Experiment,
    LearnedPriors,
)
from training.experiments.few_labels_choice import ChooseSettings, Selection
from training.experiments.few_labels_table import ENSEMBLE_SCORES, average_splits
from training.images.sets import Images
from training.networks.scores import prediction_scores

SMALL = Classify(
    filters=(2, 3),
    priors=(DWP_PRIOR, DETERMINISTIC),
    from_xavier=(DWP_PRIOR, DETERMINISTIC),
    sizes=(20,),
    splits=2,
    steps=4,
    batch_size=10,
    lr=1e-2,
    kernels=4,
    samples=3,
)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, make_images: Callable[..., Images]) -> dict[tuple[str, str], Images]:
    """100 images to train with and 30 for the test in place of MNIST, others in place of notMNIST; may be replaced."""
    data = {("mnist", "train"): make_images(100, 0), ("mnist", "test"): make_images(30, 1)}
    data |= {("notmnist", "train"): make_images(20, 2), ("notmnist", "test"): make_images(20, 3)}
    monkeypatch.setattr(Context, "images", lambda context, name, split: data[name, split])
    return data


@pytest.fixture
def experiment(data: Any, tmp_path: Path) -> Experiment:
    return SMALL.experiment(Context(tmp_path))


def run(stage: Classify, out: Path, **context: Any) -> list[dict[str, Any]]:
    folder = run_stages({"fig2a_mnist": stage}, Context(out, **context))["fig2a_mnist"]
    with (folder / "record" / "fig2a_mnist_runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_prior_has_its_term(experiment: Experiment) -> None:
    kinds = {
        DWP_PRIOR: bayes.AuxiliaryKL,
        DWP_FIXED: bayes.AuxiliaryKL,
        DWP_SEMI_IMPLICIT: bayes.SemiImplicitKL,
        MIXTURE: bayes.MonteCarloKL,
        GAUSSIAN_PRIOR: bayes.GaussianKL,
        LOG_UNIFORM: bayes.LogUniformKL,
        LOG_UNIFORM_AUTHORS: bayes.TruncatedLogUniformKL,
        STANDARD_NORMAL: bayes.NormalKL,
        NORMAL: bayes.NormalKL,
        NATURAL_PRIOR: bayes.ScaledKL,
        NORMAL_BY_LAYER: bayes.ScaledKL,
    }
    assert kinds.keys() | {DETERMINISTIC} == PRIORS.keys()
    for prior, kind in kinds.items():
        objective = experiment.objective(0, prior, FROM_DWP)
        assert [type(term) for term in objective.terms] == [kind, kind]
    assert experiment.objective(0, DETERMINISTIC, FROM_DWP).layers == []
    assert experiment.objective(0, STANDARD_NORMAL, FROM_DWP).terms[0].log_scale == 0
    relative = experiment.objective(0, LOG_UNIFORM_AUTHORS, FROM_DWP).network.features.conv1
    assert type(relative) is bayes.RelativeBayesConv2d
    trained, fixed = (experiment.objective(0, prior, FROM_DWP).terms for prior in (DWP_PRIOR, DWP_FIXED))
    assert any(p.requires_grad for p in trained.parameters()) and not any(p.requires_grad for p in fixed.parameters())


def test_what_follows_from_the_bundled_priors(experiment: Experiment) -> None:
    """The Gaussian and s are those of the kernels that the mixtures were fitted to."""
    learned = LearnedPriors.load(SMALL.vaes, SMALL.mixtures)
    for gaussian, vae, term in zip(learned.gaussians(), learned.vaes, learned.normals(), strict=True):
        assert gaussian.kernel_shape == vae.kernel_shape
        drawn = gaussian.sample(20_000, torch.Generator().manual_seed(0)).square().mean().sqrt().item()
        assert term.log_scale.exp().item() == pytest.approx(drawn, rel=0.02)
        assert term.kernel_shape == vae.kernel_shape


@pytest.mark.parametrize("prior", PRIORS)
def test_runs_are_paired(experiment: Experiment, prior: str) -> None:
    """Priors share everything but the prior; initialisations share all but the convolutions' weights."""
    first = experiment.objective(1, DWP_PRIOR, FROM_DWP).network.state_dict()
    for init in (FROM_DWP, FROM_XAVIER):
        network = experiment.objective(1, prior, init).network.state_dict()
        for name, value in first.items():
            if name.endswith("log_variance"):
                continue
            assert torch.equal(network[name], value) == (init == FROM_DWP or ".conv" not in name or "bias" in name)
    other = experiment.objective(2, prior, FROM_DWP).network.state_dict()
    assert not torch.equal(other["classifier.weight"], first["classifier.weight"])


def test_from_dwp_draws_at_the_priors_own_scale(data: Any, tmp_path: Path) -> None:
    wide = replace(SMALL, filters=(64, 32)).experiment(Context(tmp_path))
    network = wide.objective(0, DWP_PRIOR, FROM_DWP).network
    for layer, name in ((network.features.conv1, SMALL.vaes[0]), (network.features.conv2, SMALL.vaes[1])):
        expected = load_prior(name).sample(5000, torch.Generator().manual_seed(0)).square().mean().sqrt()
        assert layer.weight.square().mean().sqrt().item() == pytest.approx(expected.item(), rel=0.15)


def test_the_table(data: Any, tmp_path: Path) -> None:
    rows = run(SMALL, tmp_path)
    assert [(row["size"], row["split"], row["prior"], row["init"]) for row in rows] == [
        ("20", split, prior, init)
        for split in "01"
        for init in (FROM_DWP, FROM_XAVIER)
        for prior in (DWP_PRIOR, DETERMINISTIC)
    ]
    folder = tmp_path / "fig2a_mnist"
    table = read_done(folder)["table"]
    assert len(table) == 4 and all(row["splits"] == 2 for row in table)
    for row in table:
        own = [r for r in rows if (r["prior"], r["init"]) == (row["prior"], row["init"])]
        for name in ENSEMBLE_SCORES:
            values = torch.tensor([float(r[name]) for r in own])
            assert row[name] == pytest.approx(values.mean().item(), abs=1e-3)
            assert row[f"{name}_sd"] == pytest.approx(values.std().item(), abs=1e-3)
    assert table[0]["over_dwp"] == 0 and (folder / "record" / "fig2a_mnist.png").stat().st_size > 5000
    assert not list(folder.glob("*.checkpoint"))


def spread_rows(out: Path) -> list[dict[str, Any]]:
    with (out / "fig2a_mnist" / "record" / "fig2a_mnist_spreads.csv").open() as file:
        return list(csv.DictReader(file))


def test_posteriors_in_the_course_of_training(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the scales start, and that they move by their own learning rate; deterministic networks have none."""
    monkeypatch.setattr(classify, "BLOCK", 2)
    stage = replace(SMALL, from_xavier=(), scale=0.01, scale_lr=0.5)
    rows = run(stage, tmp_path)
    assert {row["steps"] for row in rows} == {"4"} and {row["temperature"] for row in rows} == {"1.0"}
    assert "spreads" not in rows[0]
    found = spread_rows(tmp_path)
    assert [(row["prior"], row["step"], row["layer"]) for row in found] == [
        (DWP_PRIOR, step, layer) for step in "024" for layer in ("features.conv1", "features.conv2")
    ]
    first, last = float(found[0]["scale"]), float(found[-1]["scale"])
    assert first == pytest.approx(0.01, abs=1e-5) and last > 1.2 * first
    assert float(found[0]["entropy"]) == pytest.approx(math.log(0.01) + 0.5 * math.log(2 * math.pi * math.e), abs=1e-4)
    run(replace(stage, scale_lr=1e-9), tmp_path / "still")
    assert float(spread_rows(tmp_path / "still")[-1]["scale"]) == pytest.approx(0.01, abs=1e-5)


def test_scales_start_at_the_optimum(data: Any, tmp_path: Path) -> None:
    """That of the objective at its temperature, for every split alike whether trained alone or together."""
    stage = replace(SMALL, priors=(STANDARD_NORMAL,), from_xavier=(), newton_steps=20, steps=1, scale_lr=1e-9)
    found = {}
    for temperature, together in ((1.0, 1), (1.0, 2), (0.01, 1)):
        out = tmp_path / f"{temperature}_{together}"
        run(replace(stage, temperature=temperature, together=together), out)
        found[temperature, together] = [float(row["scale"]) for row in spread_rows(out)[:2]]
    assert found[1.0, 1] == found[1.0, 2] and max(found[1.0, 1]) > 0.1
    assert all(cold < warm for cold, warm in zip(found[0.01, 1], found[1.0, 1], strict=True))


def test_settings_that_an_earlier_stage_has_chosen(data: Any, tmp_path: Path) -> None:
    held = replace(SMALL, name="", others="", from_xavier=(), hold_out=30, first_split=5)
    tried = {"a": held, "b": replace(held, steps=2, temperature=0.1)}
    chosen = {"chosen": ChooseSettings(tuple(tried), "chosen")}
    rows = run_stages(tried | chosen | {"last": replace(SMALL, needs=("chosen",), name="")}, Context(tmp_path))
    table = {(row["prior"]): row for row in read_done(rows["chosen"])["chosen"]}
    made = read_done(rows["last"])["table"]
    assert len(made) == 4 and set(table) == {DWP_PRIOR, DETERMINISTIC}
    for row in made:
        expected = table[row["prior"]]
        assert (row["steps"], row["temperature"]) == (expected["steps"], expected["temperature"])


def test_a_network_of_another_kind_with_priors_by_layer(data: Any, tmp_path: Path) -> None:
    chosen = {"network": "resnet(stride=2, blocks=1)", "filters": (4, 4, 6), "start": FROM_NATURAL}
    chosen |= {"vaes": (), "mixtures": (), "from_xavier": (DETERMINISTIC,), "estimator": "flipout"}
    stage = replace(SMALL, priors=(NATURAL_PRIOR, NORMAL_BY_LAYER, DETERMINISTIC), splits=1, **chosen)
    rows = run(stage, tmp_path)
    assert [(row["prior"], row["init"]) for row in rows[2:]] == [
        (DETERMINISTIC, FROM_NATURAL),
        (DETERMINISTIC, FROM_XAVIER),
    ]
    network = stage.experiment(Context(tmp_path)).objective(0, NATURAL_PRIOR, FROM_NATURAL).network
    layers = bayes.bayesian_layers(network)
    assert {layer.estimator for layer in layers.values()} == {"flipout"} and len(layers) == 9
    inputs = {name: bool(replace(stage, priors=(name,), start=FROM_DWP).other_inputs()) for name in stage.priors}
    assert inputs == {NATURAL_PRIOR: True, NORMAL_BY_LAYER: False, DETERMINISTIC: False}


def test_differences_are_paired_by_split() -> None:
    metrics = dict.fromkeys(ENSEMBLE_SCORES, 1.0)
    rows = [
        {**metrics, "size": 20, "split": split, "prior": prior, "init": FROM_DWP, "accuracy": accuracy}
        for split, pair in enumerate([(80.0, 81.0), (60.0, 61.0)])
        for prior, accuracy in zip((DWP_PRIOR, DETERMINISTIC), pair, strict=True)
    ]
    table = average_splits(rows)
    assert table[1]["over_dwp"] == 1 and table[1]["over_dwp_sd"] == 0 and table[1]["accuracy_sd"] > 10
    assert average_splits(rows[1:2])[0]["over_dwp"] == ""


def test_an_ensemble_is_scored_by_its_mean(experiment: Experiment) -> None:
    objective = experiment.objective(0, STANDARD_NORMAL, FROM_DWP).eval()
    with torch.no_grad():
        for layer in bayes.bayesian_layers(objective.network).values():
            layer.log_variance.fill_(-6)
    found = experiment.scores(objective, split=4)
    images, labels = experiment.test
    generator = torch.Generator().manual_seed(4)
    drawn = bayes.predict_samples(objective.network, images, 3, generator)
    for name, value in prediction_scores(drawn.mean(0), labels).items():
        assert found[name] == pytest.approx(value, abs=1e-3)
    one = [prediction_scores(part, labels)["accuracy"] for part in drawn]
    assert found["accuracy_one_sample"] == pytest.approx(sum(one) / 3, abs=1e-3)
    assert 0 <= found["ood_auroc"] <= 100


def test_deterministic_networks_are_an_ensemble_of_one(experiment: Experiment) -> None:
    found = experiment.scores(experiment.objective(0, DETERMINISTIC, FROM_DWP), 0)
    assert found["accuracy"] == found["accuracy_mean_weights"] == found["accuracy_one_sample"]


def test_testmake_images(data: Any, tmp_path: Path) -> None:
    context = Context(tmp_path)
    few = replace(SMALL, test_images=10).experiment(context)
    assert torch.equal(few.test[1], data["mnist", "test"].labels[::3])
    held = replace(SMALL, hold_out=30, others="").experiment(context)
    train, test = data["mnist", "train"].to(torch.device("cpu"))[0].split([70, 30])
    assert torch.equal(held.train[0], train) and torch.equal(held.test[0], test) and len(held.others) == 0


def test_splits_in_one_pass(data: Any, tmp_path: Path) -> None:
    """Each has its own data and network; the scores of both are kept, row by row."""
    rows = run(replace(SMALL, splits=3, together=2), tmp_path)
    alone = run(replace(SMALL, splits=3), tmp_path / "alone")
    assert [(row["split"], row["prior"], row["init"]) for row in rows] == [
        (row["split"], row["prior"], row["init"]) for row in alone
    ]
    for row, other in zip(rows, alone, strict=True):
        if row["prior"] == DETERMINISTIC:  # nothing random but the minibatches, which come from the pass's first seed
            assert float(row["train_nll"]) == pytest.approx(float(other["train_nll"]), rel=0.3)


@pytest.mark.parametrize("copies", [1, 2])
def test_augmentation_of_every_prior(data: Any, tmp_path: Path, copies: int) -> None:
    """Calibration and unknown images are in the same table, and a run that is interrupted resumes with its copies."""
    augmented = replace(SMALL, augmentation="affine", copies=copies, splits=1)
    rows, plain = run(augmented, tmp_path), run(replace(SMALL, splits=1), tmp_path / "plain")
    assert [row["prior"] for row in rows] == [row["prior"] for row in plain]
    for row, other in zip(rows, plain, strict=True):
        assert row["train_nll"] != other["train_nll"] and all(row[name] for name in ("nll", "ece", "ood_auroc"))
    images = augmented.experiment(Context(tmp_path)).trainer(10, [0], DWP_PRIOR, FROM_DWP).images
    assert images.shape[:2] == (1, 10)  # each counts once


def test_passes() -> None:
    keys = [(20, split, prior, FROM_DWP) for split in range(5) for prior in (DWP_PRIOR, DETERMINISTIC)]
    whole = passes(keys, 2)
    assert sorted(key for group in whole for key in group) == sorted(keys)
    assert all(len({key[2] for key in group}) == 1 for group in whole)


@pytest.mark.parametrize("priors", [(STANDARD_NORMAL, DETERMINISTIC), (DWP_PRIOR,)])
def test_a_table_without_the_reference_or_with_it_alone(data: Any, tmp_path: Path, priors: tuple[str, ...]) -> None:
    rows = run(replace(SMALL, priors=priors, splits=1), tmp_path)
    assert {row["prior"] for row in rows} == set(priors)
    table = read_done(tmp_path / "fig2a_mnist")["table"]
    assert all((row["over_dwp"] == "") == (DWP_PRIOR not in priors) and row["accuracy_sd"] == "" for row in table)


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("where", ["training", "scoring", "recording"])
@pytest.mark.parametrize("together", [1, 2])
def test_going_on_is_exact_wherever_it_stopped(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, together: int
) -> None:
    monkeypatch.setattr(classify, "BLOCK", 2)
    stage = replace(SMALL, together=together, from_xavier=())
    whole = run(stage, tmp_path / "whole")
    owner, name, count = {
        "training": (bayes.Trainer, "_take_step", 7),
        "scoring": (Experiment, "scores", 3),
        "recording": (sweep, "record_metrics", 3),
    }[where]
    real, calls = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying)
        with pytest.raises(Killed):
            run(stage, tmp_path / "killed")
    assert list((tmp_path / "killed" / "fig2a_mnist").glob("*.checkpoint"))
    assert run(stage, tmp_path / "killed") == whole
    assert not list((tmp_path / "killed" / "fig2a_mnist").glob("*.checkpoint"))


def test_what_is_recorded_of_an_interrupted_run_counts_on_another_machine(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, left, train_pass = tmp_path / "results", [5], Classify.train_pass
    monkeypatch.setattr(ledger, "RESULTS", results)

    def limited(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return train_pass(*arguments)

    monkeypatch.setattr(Classify, "train_pass", limited)
    with pytest.raises(KeyboardInterrupt):
        run_stages({"fig2a_mnist": SMALL}, Context(tmp_path / "one"), results)
    assert len(read_runs(results / "fig2a_mnist_runs.jsonl")) == 5
    left[0] = 3
    found = run(SMALL, tmp_path / "two", from_record=True)
    assert left == [0] and len(found) == 8
    left[0] = 8
    assert found == run(SMALL, tmp_path / "three")


def test_runs_of_other_settings_do_not_count(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RESULTS", tmp_path / "results")
    run_stages({"fig2a_mnist": SMALL}, Context(tmp_path / "one"), tmp_path / "results")
    with pytest.raises(ValueError, match=r"8 of the 8 runs in .* were made otherwise .* leave out --from-record"):
        run(replace(SMALL, steps=3), tmp_path / "two", from_record=True)


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_find_the_same(data: Any, tmp_path: Path, one_thread: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert run(SMALL, tmp_path / "one") == run(SMALL, tmp_path / "two", engine=Processes(2))


SCRIPT = """
import sys
from pathlib import Path
import torch
from training.experiments import classify
from training.experiments.classify import Classify
from training.engine.stage import Context
from training.engine.run import run_stages
torch.set_num_threads(1)
classify.BLOCK = 5
priors = ("dwp", "standard-normal")
stage = Classify(filters=(2, 3), priors=priors, from_xavier=priors, sizes=(20,), splits=2, steps=60, batch_size=10,
                 lr=1e-2, kernels=4, samples=3, test_images=50)
run_stages({"fig2a_mnist": stage}, Context(Path(sys.argv[1]), smoke=True))
"""


def test_a_killed_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """``kill -9`` in the middle of a network, then again: the tables are the same to the last digit."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    killed, whole = tmp_path / "killed" / "fig2a_mnist", tmp_path / "whole" / "fig2a_mnist"
    process = start(killed.parent)
    deadline = time.monotonic() + 120
    while len(read_metrics(killed)) < 2 or not list(killed.glob("*.checkpoint")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (killed / "done.json").exists()
    assert 2 <= len(read_metrics(killed)) < 8
    for out in (killed.parent, whole.parent):
        process = start(out)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()
    assert len(read_metrics(killed)) == 8
    for name in ("fig2a_mnist.csv", "fig2a_mnist_runs.csv"):
        assert (killed / "record" / name).read_bytes() == (whole / "record" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "notmnist"}, "networks for mnist, cifar10, and none for 'notmnist': name one in network="),
        ({"priors": ("dwp", "flat")}, r"priors must be some of dwp, .*, each once; got \('dwp', 'flat'\)"),
        ({"priors": ()}, "priors must be some of"),
        ({"priors": ("dwp", "dwp")}, "priors must be some of .* each once"),
        ({"from_xavier": ("flat",)}, r"from_xavier must be some of dwp, .*, each once; got \('flat',\)"),
        ({"filters": (2,)}, r"the network takes filters of length 2; got \(2,\)"),
        ({"sizes": (20, 20)}, r"sizes must be different; got \(20, 20\)"),
        ({"sizes": (25,)}, r"sizes must be multiples of the 10 classes, for stratified splits; got \(25,\)"),
        ({"sizes": ()}, "sizes must be multiples"),
        ({"mixtures": ("notmnist-7x7-vae",)}, "mixtures must be .* of the family mixture; notmnist-7x7-vae is a vae"),
        ({"splits": 0}, "splits must be 1 or more; got 0"),
        ({"together": 0}, "together must be 1 or more; got 0"),
        ({"test_images": 0}, "test_images must be 1 or more; got 0"),
        ({"samples": 0}, "samples must be 1 or more; got 0"),
        ({"augmentation": "mixup"}, "augmentation must be one of affine, crop and flip; got 'mixup'"),
        ({"copies": 2}, "copies=2 has no effect without augmentation; name one, or remove it"),
        ({"hold_out": 100}, "hold_out must leave some of 100 training images; got 100"),
    ],
)
def test_helpful_errors(data: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(replace(SMALL, **change), tmp_path)


def test_a_selection_needs_its_priors(data: Any, tmp_path: Path) -> None:
    stages = {"fig2a_mnist": SMALL, "few": Selection(("fig2a_mnist",), "few", (DWP_PRIOR,))}
    folder = run_stages(stages, Context(tmp_path))["few"]
    assert {row["prior"] for row in read_done(folder)["table"]} == {DWP_PRIOR}
    assert {path.name for path in (folder / "record").iterdir()} == {"few.csv", "few.png"}
    with pytest.raises(ValueError, match="fig2a_mnist has no runs of gaussian; add them to its priors"):
        run_stages(
            stages | {"other": Selection(("fig2a_mnist",), "other", (DWP_PRIOR, GAUSSIAN_PRIOR))}, Context(tmp_path)
        )


def test_selections_side_by_side(data: Any, tmp_path: Path) -> None:
    silent = replace(SMALL, name="", splits=1)
    stages = {"a": silent, "b": replace(silent, steps=2), "both": Selection(("a", "b"), "both", (DWP_PRIOR,))}
    folder = run_stages(stages, Context(tmp_path))["both"]
    assert [row["runs"] for row in read_done(folder)["table"]] == ["a", "a", "b", "b"]
    assert [path.name for path in (folder / "record").iterdir()] == ["both.csv"]
    assert [path.name for path in (tmp_path / "a" / "record").iterdir()] == ["a_runs.jsonl"]


def test_unknown_images_of_another_shape(data: Any, tmp_path: Path) -> None:
    data["notmnist", "test"] = Images(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.zeros(5).long(), {})
    message = r"images of others='notmnist' are \(3, 32, 32\), not \(1, 28, 28\) as those of 'mnist'; choose another"
    with pytest.raises(ValueError, match=message):
        run(SMALL, tmp_path)


def test_priors_of_other_families_can_take_the_place_of_vaes() -> None:
    learned = LearnedPriors.load(("notmnist-7x7", "notmnist-5x5"), ())
    assert [prior.family for prior in learned.vaes] == ["mixture", "mixture"]
    assert len(PRIORS[DWP_PRIOR].divergences(learned, nn.Module())) == 2
