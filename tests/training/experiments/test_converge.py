import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dwp_init import Gaussian, KernelDensity, Prior, apply_, save_prior
from tests.models import rms
from training.engine.records import read_done, read_metrics
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.converge import PLOTTED, WITHOUT_PRIORS, Converge, plot_convergence
from training.experiments.paired import first_crossing
from training.experiments.steps_to import StepsTo
from training.images.sets import Images
from training.kernels.kernelset import KernelSet
from training.networks.paper import MNISTNet
from training.starts.base import KAIMING, legend
from training.starts.priors import DWP, DWP_ORTHOGONAL, DWP_OWN

BUNDLED_PRIORS = ("notmnist-7x7", "notmnist-5x5")
FAMILIES = ("Gaussian prior", "dense VAE, decoder mean")
INITS = (*WITHOUT_PRIORS, DWP, DWP_OWN, *FAMILIES)


def _density(*patterns: Tensor) -> KernelDensity:
    """A density whose draws without noise are one of these kernels."""
    k = patterns[0].shape[-1]
    prior = KernelDensity((1, k, k), len(patterns)).fit_(torch.stack(patterns)[:, None])
    prior.bandwidth.fill_(0.5)
    return prior


@pytest.fixture
def out(tmp_path: Path, save_kernels: Callable[..., None]) -> Path:
    """A run with the learned kernels of both layers, and two pairs of fits."""
    for k in (7, 5):
        save_kernels(tmp_path / f"kernels_{k}x{k}", k)
        kernels = KernelSet.load(tmp_path / f"kernels_{k}x{k}").train
        fits: dict[str, Prior] = {"gaussian": Gaussian((1, k, k)).fit_(kernels), "kde": _density(*PATTERNS[k])}
        for family, prior in fits.items():
            save_prior(prior, tmp_path / f"{family}_{k}x{k}" / "prior")
    return tmp_path


PATTERNS = {k: (torch.eye(k), -torch.eye(k)) for k in (7, 5)}
NEEDS = ("kernels_7x7", "kernels_5x5", "gaussian_7x7", "gaussian_5x5", "kde_7x7", "kde_5x5")
SMALL = Converge(NEEDS, families=FAMILIES, priors=BUNDLED_PRIORS, filters=(3, 4), batch_size=16, marks=(1, 3))


Make = Callable[..., MNISTNet]


@pytest.fixture
def make(out: Path, data: dict[str, Images]) -> Make:
    """Builds an untrained network from an initialisation."""
    return lambda init, seed=0, stage=SMALL: stage.untrained(stage.parts(Context(out=out)), init, seed)


@pytest.mark.parametrize("init", INITS)
def test_runs_are_paired(make: Make, init: str) -> None:
    """Only the two convolutions' weights differ between initialisations of one seed."""
    base, network = make("own"), make(init)
    for name, value in network.state_dict().items():
        same = torch.equal(value, base.state_dict()[name])
        assert same == (init == "own" or not name.endswith(("conv1.weight", "conv2.weight")))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), make(init).parameters(), strict=True))


def _same_direction(weight: Tensor, pattern: Tensor) -> bool:
    """Whether every k×k slice is the pattern times a number."""
    flat, pattern = weight.detach().reshape(-1, pattern.numel()), pattern.flatten() / pattern.norm()
    return torch.allclose(flat, (flat @ pattern)[:, None] * pattern, atol=1e-6)


def test_a_family_takes_its_pair_of_fits(make: Make, out: Path) -> None:
    """The first of a pair for the 7×7 layer and the second for the 5×5 one; «decoder mean» is without noise."""
    mean = make("dense VAE, decoder mean").features
    assert _same_direction(mean.conv1.weight, torch.eye(7)) and _same_direction(mean.conv2.weight, torch.eye(5))
    noisy = replace(SMALL, families=("Gaussian prior", "kernel density"))
    assert not _same_direction(make("kernel density", stage=noisy).features.conv1.weight, torch.eye(7))
    for family, fits in {"Gaussian prior": "gaussian", "kernel density": "kde"}.items():
        torch.manual_seed(4)
        expected = MNISTNet((3, 4))
        apply_(expected, [out / f"{fits}_{k}x{k}" / "prior" for k in (7, 5)], scale="prior", seed=4)
        found = make(family, 4, noisy)
        for layer, k, inputs in (("conv1", 7, 1), ("conv2", 5, 3)):
            mine, theirs = (network.features.get_submodule(layer).weight for network in (found, expected))
            assert rms(mine) == pytest.approx((2 / (inputs * k * k)) ** 0.5)  # He's
            torch.testing.assert_close(mine / rms(mine), theirs / rms(theirs))


def test_a_run_reports_each_mark_and_is_reproducible(out: Path, data: dict[str, Images]) -> None:
    parts, steps = SMALL.parts(Context(out=out)), []
    (row,), again = (SMALL.train_one(parts, (KAIMING, 3), steps.append) for _ in range(2))
    assert sum(steps) == 6 and again == [row]
    assert (row["init"], row["seed"], len(row["accuracy"])) == (KAIMING, 3, 2)


@pytest.mark.parametrize("held_out", [0, 12])
def test_accuracy_is_measured_on_test_images_or_those_held_out(
    out: Path, data: dict[str, Images], held_out: int
) -> None:
    parts = replace(SMALL, hold_out=held_out).parts(Context(out=out))
    images, labels = data["train"].to(torch.device("cpu"))
    kept = 40 - held_out
    expected = (images[kept:], labels[kept:]) if held_out else data["test"].to(torch.device("cpu"))
    for found, part in ((parts.train, (images[:kept], labels[:kept])), (parts.test, expected)):
        assert torch.equal(found[0], part[0]) and torch.equal(found[1], part[1])


@pytest.mark.parametrize("hold_out", [0, 12])
def test_held_out_accuracies_never_depend_on_test_images(
    out: Path, data: dict[str, Images], make_images: Any, hold_out: int
) -> None:
    tables = []
    for seed in (1, 2):
        data["test"] = make_images(30, seed)
        folder = out / f"run-{seed}"
        folder.mkdir()
        stage = replace(SMALL, hold_out=hold_out, seeds=1)
        tables.append(stage.run(folder, Context(out=out))["table"])
    assert (tables[0] == tables[1]) == bool(hold_out)


def test_an_interrupted_stage_trains_what_is_missing(out: Path, data: Any, resumed: Any) -> None:
    first, then = resumed(replace(SMALL, seeds=2, first_seed=100, needs=(), families=()), 9)
    inits = (*WITHOUT_PRIORS[:-2], DWP, DWP_OWN)
    assert first == [(init, seed) for seed in (100, 101) for init in inits] and then == first[9:]


def test_without_priors_nothing_is_called_dwp() -> None:
    stage = Converge(families=("mixture",))
    assert stage.arms == (*WITHOUT_PRIORS, "mixture") and "dwp" not in stage.arms
    assert replace(stage, priors=BUNDLED_PRIORS).arms == (*WITHOUT_PRIORS, "dwp", "dwp, prior's scale", "mixture")


ALONE = replace(SMALL, needs=(), families=(), seeds=2)


def test_without_kernels_stages_it_runs_from_the_bundle_alone(data: dict[str, Images], tmp_path: Path) -> None:
    assert ALONE.arms == (*(init for init in WITHOUT_PRIORS if "learned" not in init), DWP, DWP_OWN)
    folder = run_stages({"converge": ALONE}, Context(out=tmp_path))["converge"]
    with (folder / "record" / "converge_mnist.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["init"] for row in table[::2]] == list(ALONE.arms)
    assert list(table[0])[-4:] == ["over_kaiming", "over_kaiming_sd", "ahead_of_kaiming", "seeds"]


def test_runs_are_the_same_with_learned_kernels_and_without(out: Path, data: dict[str, Images]) -> None:
    for init in ALONE.arms:
        rows = [stage.train_one(stage.parts(Context(out)), (init, 1), lambda _: None) for stage in (ALONE, SMALL)]
        assert rows[0] == rows[1]


def test_fewer_test_images_are_evenly_spaced(data: dict[str, Images], tmp_path: Path) -> None:
    images, labels = data["test"].to(torch.device("cpu"))
    found = replace(ALONE, test_images=10).parts(Context(out=tmp_path)).test
    assert torch.equal(found[0], images[::3]) and torch.equal(found[1], labels[::3])
    assert len(ALONE.parts(Context(out=tmp_path)).test[0]) == 30


def test_the_cifar_network_by_settings_alone(data: Any, make_images: Any, tmp_path: Path) -> None:
    data.update(train=make_images(20, 0, (3, 32, 32)), test=make_images(10, 1, (3, 32, 32)))
    stage = replace(ALONE, data="cifar10", network="cifar", filters=(4, 4, 4), seeds=1)
    made = run_stages({"runs": stage, "fig4c": StepsTo(("runs",), levels=(0.0, 101.0))}, Context(out=tmp_path))
    steps = read_done(made["fig4c"])["table"]
    assert [row["init"] for row in steps[::2]] == list(stage.arms)
    assert [(row["steps"], row["reached"]) for row in steps] == [(1.0, 1), ("", 0)] * len(stage.arms)


def test_a_set_may_be_drawn_from_with_orthogonal_channels(data: dict[str, Images], tmp_path: Path) -> None:
    stage = replace(ALONE, draws=(DWP, DWP_ORTHOGONAL))
    assert stage.arms[-2:] == (DWP, DWP_ORTHOGONAL)
    weight = (
        stage.untrained(stage.parts(Context(out=tmp_path)), DWP_ORTHOGONAL, 0)
        .features.conv2.weight.detach()
        .flatten(1)
        .double()
    )
    gram = weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64) * gram[0, 0], atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match=r"each name must be one of a start, given once; got dwp; He; there are"):
        replace(ALONE, draws=(DWP, "He")).parts(Context(out=tmp_path))


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
        ({"priors": ("notmnist-7x7", "notmnist-5")}, "'notmnist-5' is no bundled prior"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    stage = Converge(needs=(), **settings)
    with pytest.raises(ValueError, match=message):
        run_stages({"converge": stage}, Context(out=tmp_path, smoke=True))


def test_the_figure_has_a_curve_per_initialisation(tmp_path: Path, drawn: list[Any], png_size: Any) -> None:
    marks = (10, 25, 50)
    found = {init: 10 * i + torch.tensor([[1.0, 2, 3], [3, 4, 5]]) for i, init in enumerate(PLOTTED)}
    found["own"] = torch.zeros(2, 3)  # left out
    plot_convergence(dict(reversed(found.items())), marks, tmp_path / "new" / "a.png", "title")
    assert png_size(tmp_path / "new" / "a.png") == (546, 832)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [legend(init)[0] for init in PLOTTED]
    for i, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        assert list(line.get_xdata()) == list(marks)
        assert line.get_ydata().tolist() == [10 * i + 2, 10 * i + 3, 10 * i + 4]
        edge = band.get_paths()[0].vertices[:, 1]
        sd = 2**0.5  # of two seeds, 2 apart
        assert (edge.min(), edge.max()) == pytest.approx((10 * i + 2 - sd, 10 * i + 4 + sd))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "25", "50"]
