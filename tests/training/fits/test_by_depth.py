import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dwp_init import Gaussian
from tests.training.fits.common import SCALE, mixture, write_kernels
from training.engine.stage import Context
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.kernels.kernelset import KernelSet


def fitted(folder: Path, layers: Mapping[str, KernelSet], **settings: Any) -> dict[str, Any]:
    """Fits to the kernels of layers; returns what was measured."""
    for name, kernels in layers.items():
        if not (folder / name).exists():
            write_kernels(folder, kernels)
            (folder / "kernels").rename(folder / name)
    (folder / "fit").mkdir(exist_ok=True)
    stage = FitByDepth(tuple(layers), components=(2,), shrinkages=(3.0,), scales=(1.0,), restarts=1)
    return replace(stage, **settings).run(folder / "fit", Context(out=folder))["metrics"]


def describe_otherwise(folder: Path, dataset: str) -> None:
    """Says of the kernels of a finished stage that they are of another data set."""
    done = json.loads((folder / "done.json").read_text())
    done["source"]["dataset"] = dataset
    (folder / "done.json").write_text(json.dumps(done))


def kernel_set(counts: Sequence[int], factor: float = 1, seed: int = 0) -> KernelSet:
    """Kernels of the two-sided law, a factor larger."""
    return KernelSet(*(factor * mixture(n, seed + i) for i, n in enumerate(counts)), torch.arange(counts[-1]))


def test_layers_are_fitted_one_by_one(tmp_path: Path) -> None:
    """The second layer's kernels are twice the first's, so its density is 9 log 2 nats lower where depth is known."""
    layers = {name: kernel_set((400, 60, 60), factor) for name, factor in (("near", 1), ("far", 2))}
    write_kernels(tmp_path, layers["far"])
    (tmp_path / "kernels").rename(tmp_path / "far")
    describe_otherwise(tmp_path / "far", "twice")
    metrics = fitted(tmp_path, layers, depths=(0.5, 1))
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


def test_checkpoints_of_several_harvests_keep_their_licences(tmp_path: Path) -> None:
    """The prior's licence is that of all of them together, each named once."""
    layers = {name: kernel_set((60, 20, 20), seed=seed) for name, seed in (("near", 0), ("far", 9))}
    said = {"a": {"license": "MIT"}, "b": {"license": "Apache-2.0"}, "c": {"license": "MIT"}}
    for name, checkpoints in (("near", "ab"), ("far", "bc")):
        write_kernels(tmp_path, layers[name])
        (tmp_path / "kernels").rename(tmp_path / name)
        source = {"checkpoints": list(checkpoints), "origins": {each: said[each] for each in checkpoints}}
        done = json.loads((tmp_path / name / "done.json").read_text())
        (tmp_path / name / "done.json").write_text(json.dumps(done | {"source": source}))
    fitted(tmp_path, layers, depths=(0.5, 1))
    details = fitted_prior(tmp_path / "fit").details
    assert details["source"]["checkpoints"] == ["a", "b", "c"] and details["source"]["origins"] == said
    assert details["license"] == "Apache-2.0 AND MIT"


def test_what_is_known_at_depth_counts_each_kernel_the_same(tmp_path: Path) -> None:
    """As does log p of kernels of unknown depth; the second layer has three times as many."""
    layers = {"near": kernel_set((200, 60, 40)), "far": kernel_set((200, 60, 120), 5)}
    metrics = fitted(tmp_path, layers, depths=(0.5, 1))
    prior, tests = fitted_prior(tmp_path / "fit"), [layer.test for layer in layers.values()]
    known = torch.cat([prior.at(depth).log_prob(test) for depth, test in zip((0.5, 1), tests, strict=True)])
    controls = [Gaussian((1, 3, 3)).fit_(layer.train).log_prob(layer.test) for layer in layers.values()]
    assert metrics["log_prob_at_depth"] == pytest.approx(known.mean().item(), abs=2e-3)
    assert metrics["gaussian_log_prob_at_depth"] == pytest.approx(torch.cat(controls).mean().item(), abs=2e-3)
    assert metrics["log_prob"] < metrics["log_prob_at_depth"]


def test_a_layer_of_few_kernels_is_fitted_with_its_neighbours_and_one_unlike_them_alone(tmp_path: Path) -> None:
    """The first layer has few kernels and the second's density; the third's kernels are ten times as large."""
    layers = {
        "near": kernel_set((20, 60, 60)),
        "middle": kernel_set((200, 60, 60), seed=10),
        "far": kernel_set((200, 60, 60), 10, seed=20),
    }
    grid = {"components": (1,), "depths": (0.2, 0.4, 1)}
    alone, near_too = (fitted(tmp_path, layers, reaches=reaches, **grid) for reaches in ((0,), (0, 1)))
    assert alone["reaches"] == [0, 0, 0]
    assert near_too["reaches"] == [1, 0, 0]
    near, _, far = zip(alone["log_prob_by_depth"], near_too["log_prob_by_depth"], strict=True)
    assert near[1] > near[0] + 0.1 and far[0] == far[1]


ONE_GAUSSIAN = {"components": (1,), "shrinkages": (1e-6,), "depths": (0.5, 1.0)}


def test_the_reach_is_chosen_on_validation_kernels_not_on_test_kernels(tmp_path: Path) -> None:
    """The near layer's validation kernels are like its own, and its test kernels like the far layer's."""
    near = replace(kernel_set((200, 60, 60)), test=10 * mixture(60, 2))
    metrics = fitted(tmp_path, {"near": near, "far": kernel_set((200, 60, 61), 10, 3)}, reaches=(0, 1), **ONE_GAUSSIAN)
    assert metrics["reaches"] == [0, 0]
    prior = fitted_prior(tmp_path / "fit")
    assert prior.at(0.5).log_prob(near.test).mean() < prior.at(1.0).log_prob(near.test).mean()


def test_the_gaussian_it_is_compared_with_may_reach_as_far(tmp_path: Path) -> None:
    """Of mixtures that are Gaussians themselves neither is ahead, though a layer alone has few kernels."""
    layers = {name: kernel_set((14, 60, 60), seed=seed) for name, seed in (("near", 0), ("far", 10))}
    metrics = fitted(tmp_path, layers, reaches=(0, 1), **ONE_GAUSSIAN)
    assert metrics["reaches"] == [1, 1]
    assert metrics["log_prob_at_depth"] == pytest.approx(metrics["gaussian_log_prob_at_depth"], abs=0.01)


def harvested(folder: Path, depths: Sequence[float], counts: Sequence[int], validation: Sequence[int]) -> None:
    """Kernels as a harvest leaves them: each layer's are a factor of two larger than those of the layer before."""
    layers = [
        kernel_set((n, held, held), 2.0**i, seed=10 * i)
        for i, (n, held) in enumerate(zip(counts, validation, strict=True))
    ]
    write_kernels(folder, KernelSet.together(layers))
    labels = {}
    for part in ("train", "validation", "test"):
        each = torch.tensor([len(getattr(layer, part)) for layer in layers])
        labels[f"{part}.depth"] = torch.tensor(depths).repeat_interleave(each)
    save_file(labels, folder / "kernels" / "labels.safetensors")


def test_kernels_of_a_harvest_are_fitted_by_their_depth(tmp_path: Path) -> None:
    """Layers at 0.1 and 0.2 go together, and where the last layer is 8 times larger its mixture says so."""
    harvested(tmp_path, (0.1, 0.2, 0.8, 1.0), (60, 60, 300, 300), (20, 20, 30, 30))
    metrics = fitted(tmp_path, {"kernels": kernel_set((2, 2, 2))}, depths=(0.15, 0.8, 1.0))
    prior = fitted_prior(tmp_path / "fit")
    assert prior.depths == pytest.approx((0.15, 0.8, 1.0))
    for depth, square in ((0.15, (1 + 4) / 2), (0.8, 16), (1.0, 64)):
        drawn = prior.at(depth).sample(5000, torch.Generator().manual_seed(0)).square().sum((1, 2, 3)).mean().item()
        assert drawn == pytest.approx(square * (1 + 9 * SCALE**2), rel=0.1)
    assert len(metrics["log_prob_by_depth"]) == 3 and metrics["kernels"] == 100
    assert prior.details["source"]["kernels"] == {"train": 720, "validation": 100, "test": 100}


@pytest.mark.parametrize(
    ("bins", "validation", "expected"),
    [
        (2, (20, 20, 20, 20), (0.25, 0.75)),
        (4, (20, 20, 20, 20), (0.125, 0.875)),
        (5, (20, 20, 20, 20), (0.1, 0.3, 0.9)),
        (5, (0, 20, 20, 20), (0.3, 0.9)),  # the first layer's kernels go to the second's, to be chosen by those
        (5, (0, 0, 0, 20), (0.9,)),
    ],
)
def test_bins_have_equal_width_and_kernels_in_every_part(
    bins: int, validation: tuple[int, ...], expected: tuple[float, ...], tmp_path: Path
) -> None:
    harvested(tmp_path, (0.0, 0.25, 0.8, 1.0), (20, 30, 300, 300), validation)
    fitted(tmp_path, {"kernels": kernel_set((2, 2, 2))}, bins=bins)
    prior = fitted_prior(tmp_path / "fit")
    assert prior.depths == expected and prior.details["source"]["kernels"]["train"] == 650


def test_kernels_without_depths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs the depth of each kernel, in the labels\.safetensors that a harvest"):
        fitted(tmp_path, {"kernels": kernel_set((20, 20, 20))})
    harvested(tmp_path / "few", (0.0, 1.0), (20, 20), (0, 20))
    with pytest.raises(
        ValueError, match=r"depth 0 has {'train': 20, .* kernels; each part needs 2 or more: leave it out"
    ):
        fitted(tmp_path / "few", {"kernels": kernel_set((2, 2, 2))}, depths=(0, 1))
    kernel_set((21, 20, 20)).save(tmp_path / "few" / "kernels")
    with pytest.raises(
        ValueError, match=r"labels\.safetensors has .*'train': 40.* depths for .*'train': 21.* kernels; harvest"
    ):
        fitted(tmp_path / "few", {"kernels": kernel_set((2, 2, 2))})
    with pytest.raises(ValueError, match="bins must be 1 or more; got 0"):
        fitted(tmp_path / "few", {"kernels": kernel_set((2, 2, 2))}, bins=0)


def test_layers_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    layers = {name: kernel_set((20, 20, 20)) for name in ("near", "far")}
    with pytest.raises(ValueError, match="depths must ascend"):
        fitted(tmp_path, layers, **ONE_GAUSSIAN | {"depths": (1.0, 0.5)})
    describe_otherwise(tmp_path / "far", "another")
    with pytest.raises(ValueError, match="near and far differ in dataset: fitted together, one could see networks"):
        fitted(tmp_path, layers, reaches=(0, 1), **ONE_GAUSSIAN)
