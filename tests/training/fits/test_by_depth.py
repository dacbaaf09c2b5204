import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dwp_init import Gaussian
from tests.training.fits.common import (
    mixture,
    write_kernels,
)
from training.engine.stage import Context
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.kernels.kernelset import KernelSet


def test_layers_are_fitted_one_by_one(tmp_path: Path) -> None:
    """The second layer's kernels are twice the first's, so its density is 9 log 2 nats lower where depth is known."""
    for name, factor in (("near", 1), ("far", 2)):
        parts = [factor * mixture(n, seed) for seed, n in enumerate((400, 60, 60))]
        write_kernels(tmp_path, KernelSet(*parts, torch.arange(60)))
        (tmp_path / "kernels").rename(tmp_path / name)
    done = json.loads((tmp_path / "far" / "done.json").read_text())
    done["source"]["dataset"] = "twice"
    (tmp_path / "far" / "done.json").write_text(json.dumps(done))
    stage = FitByDepth(("near", "far"), components=(2,), shrinkages=(3.0,), scales=(1.0,), restarts=1, depths=(0.5, 1))
    (tmp_path / "fit").mkdir()
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    prior = fitted_prior(tmp_path / "fit")
    assert prior.depths == (0.5, 1.0)
    for depth, factor, found in zip((0.5, 1), (1, 2), metrics["log_prob_by_depth"], strict=True):
        kernels = factor * mixture(60, 2)
        assert prior.at(depth).log_prob(kernels).mean().item() == pytest.approx(found, abs=1e-3)
    near, far = metrics["log_prob_by_depth"]
    assert near - far == pytest.approx(9 * math.log(2), abs=0.01)
    assert metrics["log_prob_at_depth"] == pytest.approx((near + far) / 2, abs=1e-3)
    assert near - math.log(2) - 5 < metrics["log_prob"] < metrics["log_prob_at_depth"]
    source = prior.details["source"]
    assert source["dataset"] == ["mixture", "twice"]
    assert source["kernels"] == {"train": 800, "validation": 120, "test": 120} and source["kept"] == [1.0, 1.0]


def test_what_is_known_at_depth_counts_each_kernel_the_same(tmp_path: Path) -> None:
    """As log p of kernels of unknown depth does, beside which it stands; the second layer has three times as many."""
    layers = []
    for name, factor, held_out in (("near", 1, 40), ("far", 5, 120)):
        parts = [factor * mixture(n, n) for n in (200, 60, held_out)]
        layers.append(KernelSet(*parts, torch.zeros(held_out)))
        write_kernels(tmp_path, layers[-1])
        (tmp_path / "kernels").rename(tmp_path / name)
    stage = FitByDepth(("near", "far"), components=(2,), shrinkages=(3.0,), scales=(1.0,), restarts=1, depths=(0.5, 1))
    (tmp_path / "fit").mkdir()
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    prior, tests = fitted_prior(tmp_path / "fit"), [layer.test for layer in layers]
    known = torch.cat([prior.at(depth).log_prob(test) for depth, test in zip((0.5, 1), tests, strict=True)])
    controls = [Gaussian((1, 3, 3)).fit_(layer.train).log_prob(layer.test) for layer in layers]
    assert metrics["log_prob_at_depth"] == pytest.approx(known.mean().item(), abs=2e-3)
    assert metrics["gaussian_log_prob_at_depth"] == pytest.approx(torch.cat(controls).mean().item(), abs=2e-3)
    assert metrics["log_prob"] < metrics["log_prob_at_depth"]


def test_a_layer_of_few_kernels_is_fitted_with_its_neighbours_and_one_unlike_them_alone(tmp_path: Path) -> None:
    """The first layer has few kernels and the second's density; the third's kernels are ten times as large."""
    for number, (name, factor, n) in enumerate((("near", 1, 20), ("middle", 1, 200), ("far", 10, 200))):
        parts = [factor * mixture(count, 10 * number + seed) for seed, count in enumerate((n, 60, 60))]
        write_kernels(tmp_path, KernelSet(*parts, torch.arange(60)))
        (tmp_path / "kernels").rename(tmp_path / name)
    grid = {"components": (1,), "shrinkages": (3.0,), "scales": (1.0,), "restarts": 1, "depths": (0.2, 0.4, 1)}
    found = {}
    for name, reaches in (("alone", (0,)), ("any", (0, 1))):
        (tmp_path / name).mkdir()
        stage = FitByDepth(("near", "middle", "far"), reaches=reaches, **grid)
        found[name] = stage.run(tmp_path / name, Context(out=tmp_path))["metrics"]
    assert found["alone"]["reaches"] == [0, 0, 0]
    assert found["any"]["reaches"] == [1, 0, 0]
    near, _, far = zip(found["alone"]["log_prob_by_depth"], found["any"]["log_prob_by_depth"], strict=True)
    assert near[1] > near[0] + 0.1 and far[0] == far[1]


def _layers(folder: Path, layers: Mapping[str, KernelSet]) -> None:
    for name, kernels in layers.items():
        write_kernels(folder, kernels)
        (folder / "kernels").rename(folder / name)


ONE_GAUSSIAN = {"components": (1,), "shrinkages": (1e-6,), "scales": (1.0,), "restarts": 1, "depths": (0.5, 1.0)}


def test_the_reach_is_chosen_on_validation_kernels_not_on_test_kernels(tmp_path: Path) -> None:
    """The near layer's validation kernels are like its own, and its test kernels like the far layer's."""
    near = KernelSet(mixture(200, 0), mixture(60, 1), 10 * mixture(60, 2), torch.arange(60))
    far = KernelSet(*(10 * mixture(n, n) for n in (200, 60, 61)), torch.arange(61))
    _layers(tmp_path, {"near": near, "far": far})
    (tmp_path / "fit").mkdir()
    stage = FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN)
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    assert metrics["reaches"] == [0, 0]
    prior = fitted_prior(tmp_path / "fit")
    assert prior.at(0.5).log_prob(near.test).mean() < prior.at(1.0).log_prob(near.test).mean()


def test_the_gaussian_beside_it_may_reach_as_far(tmp_path: Path) -> None:
    """Of mixtures that are Gaussians themselves neither is ahead, though a layer alone has few kernels."""
    _layers(
        tmp_path,
        {
            name: KernelSet(*(mixture(n, 10 * k + part) for part, n in enumerate((14, 60, 60))), torch.arange(60))
            for k, name in enumerate(("near", "far"))
        },
    )
    (tmp_path / "fit").mkdir()
    stage = FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN)
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    assert metrics["reaches"] == [1, 1]
    assert metrics["log_prob_at_depth"] == pytest.approx(metrics["gaussian_log_prob_at_depth"], abs=0.01)


def test_neighbours_of_other_networks_are_not_fitted_together(tmp_path: Path) -> None:
    kernels = KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20))
    _layers(tmp_path, {"near": kernels, "far": kernels})
    done = json.loads((tmp_path / "far" / "done.json").read_text())
    done["source"]["dataset"] = "another"
    (tmp_path / "far" / "done.json").write_text(json.dumps(done))
    with pytest.raises(ValueError, match="near and far differ in dataset: fitted together, one could see networks"):
        FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN).run(tmp_path, Context(out=tmp_path))


def test_odd_depths_are_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    kernels = KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20))
    _layers(tmp_path, {"near": kernels, "far": kernels})
    with pytest.raises(ValueError, match="depths must ascend"):
        FitByDepth(("near", "far"), **ONE_GAUSSIAN | {"depths": (1.0, 0.5)}).run(tmp_path, Context(out=tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_reaches_are_checked(tmp_path: Path) -> None:
    write_kernels(tmp_path, KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20)))
    with pytest.raises(ValueError, match=r"reaches must be one or more .*; got \(-1,\)"):
        FitByDepth(("kernels",), depths=(1.0,), reaches=(-1,)).run(tmp_path, Context(out=tmp_path))


def test_each_layer_needs_its_depth(tmp_path: Path) -> None:
    write_kernels(tmp_path, KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20)))
    with pytest.raises(ValueError, match=r"each kernels stage needs its depth; needs=\('kernels',\), depths=\(\)"):
        FitByDepth(("kernels",)).run(tmp_path, Context(out=tmp_path))
