import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dwp_init import Gaussian, KernelDensity, Prior, apply_, save_prior
from dwp_init.convolutions import he_rms
from training.engine.records import read_done, read_metrics
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.converge import BASELINE, BUNDLED, CONTROLS, LEARNED, Converge, _Job
from training.experiments.steps_to import StepsTo, first_crossing
from training.images.sets import Images
from training.kernels.kernelset import KernelSet
from training.networks.paper import MNISTNet
from training.starts.fills import DWP, DWP_ORTHOGONAL

BUNDLED_PRIORS = ("notmnist-7x7", "notmnist-5x5")
FAMILIES = ("Gaussian prior", "dense VAE, decoder mean")
INITS = CONTROLS + BUNDLED + FAMILIES


def _kernels(k: int, n: int = 50) -> Tensor:
    return torch.randn(n, 1, k, k, generator=torch.Generator().manual_seed(k))


def _density(*patterns: Tensor) -> KernelDensity:
    """A density whose draws without noise are one of these kernels."""
    k = patterns[0].shape[-1]
    prior = KernelDensity((1, k, k), len(patterns)).fit_(torch.stack(patterns)[:, None])
    prior.bandwidth.fill_(0.5)
    return prior


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run with the learned kernels of both layers, and two pairs of fits."""
    for k in (7, 5):
        (tmp_path / f"kernels_{k}x{k}").mkdir()
        KernelSet(_kernels(k), _kernels(k), _kernels(k), torch.zeros(50)).save(tmp_path / f"kernels_{k}x{k}")
        fits: dict[str, Prior] = {"gaussian": Gaussian((1, k, k)).fit_(_kernels(k)), "kde": _density(*PATTERNS[k])}
        for family, prior in fits.items():
            save_prior(prior, tmp_path / f"{family}_{k}x{k}" / "prior")
    return tmp_path


PATTERNS = {k: (torch.eye(k), -torch.eye(k)) for k in (7, 5)}
NEEDS = ("kernels_7x7", "kernels_5x5", "gaussian_7x7", "gaussian_5x5", "kde_7x7", "kde_5x5")
SMALL = Converge(NEEDS, FAMILIES, priors=BUNDLED_PRIORS, filters=(3, 4), batch_size=16, marks=(1, 3))


def _images(n: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(images, torch.randint(10, (n,), generator=generator), {"name": "mnist", "seed": seed})


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> dict[str, Images]:
    """40 images to train with and 30 for the test, in place of MNIST; may be replaced."""
    data = {"train": _images(40, 0), "test": _images(30, 1)}
    monkeypatch.setattr(Context, "images", lambda context, name, split: data[split])
    return data


@pytest.fixture
def job(out: Path, data: dict[str, Images]) -> _Job:
    return SMALL._job(Context(out=out))


def _network(job: _Job, init: str, seed: int = 0) -> MNISTNet:
    torch.manual_seed(seed)
    network = MNISTNet(job.stage.filters)
    job._initialize_(network, init, seed)
    return network


@pytest.mark.parametrize("init", INITS)
def test_runs_are_paired(job: _Job, init: str) -> None:
    """Only the two convolutions' weights differ between initialisations of one seed."""
    base, network = _network(job, "PyTorch default"), _network(job, init)
    for name, value in network.state_dict().items():
        same = torch.equal(value, base.state_dict()[name])
        assert same == (init == "PyTorch default" or not name.endswith(("conv1.weight", "conv2.weight")))
    again = _network(job, init)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def _same_direction(weight: Tensor, pattern: Tensor) -> bool:
    """Whether every k×k slice is the pattern times a number."""
    flat, pattern = weight.detach().reshape(-1, pattern.numel()), pattern.flatten() / pattern.norm()
    return torch.allclose(flat, (flat @ pattern)[:, None] * pattern, atol=1e-6)


def test_a_family_takes_its_pair_of_fits(job: _Job, out: Path) -> None:
    """The first of a pair for the 7×7 layer and the second for the 5×5 one; «decoder mean» is without noise."""
    mean = _network(job, "dense VAE, decoder mean").features
    assert _same_direction(mean.conv1.weight, torch.eye(7)) and _same_direction(mean.conv2.weight, torch.eye(5))
    noisy = replace(SMALL, families=("Gaussian prior", "kernel density"))._job(Context(out=out))
    noise = _network(noisy, "kernel density").features
    assert not _same_direction(noise.conv1.weight, torch.eye(7))
    for family, fits in {"Gaussian prior": "gaussian", "kernel density": "kde"}.items():
        torch.manual_seed(4)
        expected = MNISTNet((3, 4))
        apply_(expected, [out / f"{fits}_{k}x{k}" / "prior" for k in (7, 5)], seed=4)
        found = _network(noisy, family, seed=4)
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))


def test_white_noise_has_the_scale_of_the_priors_draws(job: _Job) -> None:
    noise, dwp = _network(job, "white noise, dwp's RMS"), _network(job, "dwp")
    for name in ("conv1", "conv2"):
        scales = [getattr(n.features, name).weight.square().mean().sqrt().item() for n in (noise, dwp)]
        assert scales[0] == pytest.approx(scales[1], rel=0.15)
        assert scales[1] == pytest.approx(he_rms(getattr(dwp.features, name)), rel=1e-4)


def test_learned_kernels_are_drawn_from_the_set(job: _Job) -> None:
    own = _network(job, "learned kernels, own scale").features.conv2.weight.detach().reshape(-1, 25)
    known = job.kernels[5].reshape(-1, 25)
    assert all((known == kernel).all(1).any() for kernel in own)
    scaled = _network(job, "learned kernels, He's RMS").features.conv2
    assert scaled.weight.square().mean().sqrt().item() == pytest.approx(he_rms(scaled), rel=1e-4)


def test_a_run_reports_each_mark_and_is_reproducible(job: _Job) -> None:
    steps: list[int] = []
    row = job.train((BASELINE, 3), steps.append)
    assert sum(steps) == 3
    assert (row["init"], row["seed"], len(row["accuracy"])) == (BASELINE, 3, 2)
    assert row == job.train((BASELINE, 3), steps.append)


def test_accuracy_is_measured_on_test_images(job: _Job, data: dict[str, Images]) -> None:
    for found, part in ((job.train_data, "train"), (job.test, "test")):
        assert torch.equal(found[0], data[part].images / 255) and torch.equal(found[1], data[part].labels)


def test_accuracy_is_measured_on_training_images_that_are_held_out(out: Path, data: dict[str, Images]) -> None:
    job = replace(SMALL, hold_out=12)._job(Context(out=out))
    images, labels = data["train"].images / 255, data["train"].labels
    assert torch.equal(job.train_data[0], images[:28]) and torch.equal(job.train_data[1], labels[:28])
    assert torch.equal(job.test[0], images[28:]) and torch.equal(job.test[1], labels[28:])


@pytest.mark.parametrize("hold_out", [0, 12])
def test_held_out_accuracies_never_depend_on_test_images(out: Path, data: dict[str, Images], hold_out: int) -> None:
    tables = []
    for seed in (1, 2):
        data["test"] = _images(30, seed)
        folder = out / f"run-{seed}"
        folder.mkdir()
        stage = replace(SMALL, hold_out=hold_out, seeds=1)
        tables.append(stage.run(folder, Context(out=out))["table"])
    assert (tables[0] == tables[1]) == bool(hold_out)


def _accuracy(init: str, seed: int) -> list[float]:
    """Seeds differ by 10, dwp is 1 over all others but the learned kernels, which lead by 3 in one seed of two."""
    lead = {"dwp": 1.0, LEARNED: 3.0 * (seed == 7)}
    return [10.0 * seed + lead.get(init, 0), 50.0]


def test_the_summary_pairs_seeds(tmp_path: Path) -> None:
    rows = [{"init": init, "seed": seed, "accuracy": _accuracy(init, seed)} for init in INITS for seed in (6, 7)]
    stage = replace(SMALL, seeds=2, name="made_up")
    table = {(row["init"], row["step"]): row for row in stage._summarize(tmp_path, rows)["table"]}
    assert list(table) == [(init, step) for init in INITS for step in (1, 3)]
    dwp, learned = table["dwp", 1], table[LEARNED, 1]
    assert (dwp["accuracy"], dwp["sd"], dwp["seeds"]) == (66.0, round(50**0.5, 3), 2)
    assert (dwp["over_kaiming"], dwp["over_kaiming_sd"], dwp["ahead_of_kaiming"]) == (1.0, 0.0, 2)
    assert (dwp["over_learned"], dwp["over_learned_sd"], dwp["ahead_of_learned"]) == (-0.5, round(4.5**0.5, 3), 1)
    assert (learned["over_kaiming"], learned["ahead_of_kaiming"]) == (1.5, 1)
    assert table[BASELINE, 1]["over_kaiming"] == learned["over_learned"] == learned["ahead_of_learned"] == 0
    assert table["dwp", 3]["ahead_of_kaiming"] == table["dwp", 3]["ahead_of_learned"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"made_up.csv", "made_up_runs.csv", "made_up.png"}
    with (tmp_path / "made_up_runs.csv").open(newline="") as file:
        flat = {
            (row["init"], int(row["seed"]), int(row["step"])): float(row["accuracy"]) for row in csv.DictReader(file)
        }
    expected = {(row["init"], row["seed"]): row["accuracy"] for row in rows}
    assert flat == {
        (*run, step): value for run, found in expected.items() for step, value in zip((1, 3), found, strict=True)
    }


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    rows = [{"init": init, "seed": 0, "accuracy": _accuracy(init, 0)} for init in INITS]
    for row in replace(SMALL, seeds=1)._summarize(tmp_path, rows)["table"]:
        assert row["sd"] == row["over_kaiming_sd"] == row["over_learned_sd"] == ""


def test_an_interrupted_stage_trains_what_is_missing(
    out: Path, data: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, folder, trained = replace(SMALL, seeds=2, first_seed=100), out / "converge", []
    train = _Job.train
    monkeypatch.setattr(_Job, "train", lambda job, run, progress: trained.append(run) or train(job, run, progress))
    folder.mkdir()
    table = stage.run(folder, Context(out=out))["table"]
    assert trained == [(init, seed) for seed in (100, 101) for init in INITS]
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:-3]) + lines[-3][:20])
    trained.clear()
    assert stage.run(folder, Context(out=out))["table"] == table
    assert trained == [(init, 101) for init in INITS[-3:]]
    assert {row["seed"] for row in read_metrics(folder)} == {100, 101}


def test_without_priors_nothing_is_called_dwp() -> None:
    stage = Converge(families=("mixture",))
    assert stage.inits == (*CONTROLS, "mixture") and "dwp" not in stage.inits
    assert replace(stage, priors=BUNDLED_PRIORS).inits == (*CONTROLS, "dwp", "dwp, prior's scale", "mixture")


ALONE = replace(SMALL, needs=(), families=(), seeds=2)


def test_without_kernels_stages_it_runs_from_the_bundle_alone(data: dict[str, Images], tmp_path: Path) -> None:
    assert ALONE.inits == tuple(init for init in CONTROLS if "learned" not in init) + BUNDLED
    folder = run_stages({"converge": ALONE}, Context(out=tmp_path))["converge"]
    with (folder / "record" / "converge_mnist.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["init"] for row in table[::2]] == list(ALONE.inits)
    assert list(table[0])[-4:] == ["over_kaiming", "over_kaiming_sd", "ahead_of_kaiming", "seeds"]


def test_runs_are_the_same_with_learned_kernels_and_without(job: _Job, data: dict[str, Images], tmp_path: Path) -> None:
    alone = ALONE._job(Context(out=tmp_path))
    for init in ALONE.inits:
        assert alone.train((init, 1), lambda *_: None) == job.train((init, 1), lambda *_: None)


def test_fewer_test_images_are_evenly_spaced(data: dict[str, Images], tmp_path: Path) -> None:
    images, labels = data["test"].to(torch.device("cpu"))
    found = replace(ALONE, test_images=10)._job(Context(out=tmp_path)).test
    assert torch.equal(found[0], images[::3]) and torch.equal(found[1], labels[::3])
    assert len(ALONE._job(Context(out=tmp_path)).test[0]) == 30


def test_the_cifar_network_by_settings_alone(data: dict[str, Images], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for split, n in {"train": 20, "test": 10}.items():
        pixels = torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
        data[split] = Images(pixels, torch.arange(n) % 10, {"name": "cifar10"})
    stage = replace(ALONE, data="cifar10", network="cifar", filters=(4, 4, 4), seeds=1)
    made = run_stages({"runs": stage, "fig4c": StepsTo(("runs",), levels=(0.0, 101.0))}, Context(out=tmp_path))
    steps = read_done(made["fig4c"])["table"]
    assert [row["init"] for row in steps[::2]] == list(stage.inits)
    assert [(row["steps"], row["reached"]) for row in steps] == [(1.0, 1), ("", 0)] * len(stage.inits)


def test_a_set_may_be_drawn_from_with_orthogonal_channels(data: dict[str, Images], tmp_path: Path) -> None:
    stage = replace(ALONE, draws=(DWP, DWP_ORTHOGONAL))
    assert stage.inits[-2:] == (DWP, DWP_ORTHOGONAL)
    job = stage._job(Context(out=tmp_path))
    weight = _network(job, DWP_ORTHOGONAL).features.conv2.weight.detach().flatten(1).double()
    gram = weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64) * gram[0, 0], atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match=r"inits must be some of .*; got dwp; He"):
        replace(ALONE, draws=(DWP, "He"))._job(Context(out=tmp_path))


def test_steps_are_those_of_the_curves(data: dict[str, Images], tmp_path: Path) -> None:
    """Of every seed's own curve, by its own crossing."""
    made = run_stages({"runs": ALONE, "steps": StepsTo(("runs",), levels=(5.0, 10.0))}, Context(out=tmp_path))
    curves = {(row["init"], row["seed"]): row["accuracy"] for row in read_metrics(made["runs"])}
    with (made["steps"] / "record" / "steps_to_runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(curves)
    for row in rows:
        found = first_crossing((1, 3), curves[row["init"], int(row["seed"])], float(row["level"]))
        assert row["steps"] == (str(round(found, 1)) if found == found else "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"needs": NEEDS[:-1]}, "2 kernels stages and 3 fits; there are 2 layers, and 2 families with a pair each"),
        ({"families": ("mixture",)}, "2 kernels stages and 4 fits; .*1 families with a pair each"),
        ({"needs": NEEDS[:2]}, "2 kernels stages and 0 fits; .*2 families"),
        ({"needs": NEEDS[:1], "families": ()}, "1 kernels stages and 0 fits; there are 2 layers"),
        ({"hold_out": 40}, "hold_out must leave some of 40 training images; got 40"),
        ({"hold_out": -1}, "hold_out must leave some of 40 training images; got -1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    settings: dict[str, Any], message: str, out: Path, data: dict[str, Images]
) -> None:
    (out / "converge").mkdir()
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **settings).run(out / "converge", Context(out=out))
    assert not list((out / "converge").iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"test_images": 0}, "test_images must be 1 or more; got 0"),
        ({"network": "lenet"}, "unknown network 'lenet'; there are mnist, cifar"),
        ({"marks": ()}, r"marks must be steps from 1 up, each once and in order; got \(\)"),
        ({"marks": (4, 2)}, r"marks must be steps from 1 up, each once and in order; got \(4, 2\)"),
        ({"marks": (0, 2)}, "marks must be steps from 1 up"),
        ({"priors": ("notmnist-7x7", "notmnist-5")}, "no prior and no folder is called 'notmnist-5'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    stage = Converge(needs=(), **settings)
    with pytest.raises(ValueError, match=message):
        run_stages({"converge": stage}, Context(out=tmp_path, smoke=True))
