import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.engine.stage import Context
from training.kernels.checkpoints import network_file
from training.kernels.collect import JointKernels, Kernels
from training.kernels.kernelset import KernelSet

SOURCE = {
    "network": "mnist",
    "data": "notmnist",
    "filters": [10, 2],
    "networks": 5,
    "epochs": 1,
    "batch_size": 2,
    "lr": 0.1,
    "l2": 0.2,
    "precision": "float32",
    "init_scale": 1.0,
    "first_seed": 3,
}


HELD_OUT = {"validation_networks": 1, "test_networks": 1}


def conv1(seed: int) -> Tensor:
    """Ten flat kernels: of norms 1-10 and 11-20 in networks 3 and 4, a thousand times larger in the others."""
    norms = torch.arange(1.0, 11) + 10 * (seed - 3)
    return (norms * (1 if seed < 5 else 1000)).view(10, 1, 1, 1) * torch.full((1, 1, 7, 7), 1 / 7)


def conv2(seed: int) -> Tensor:
    return torch.randn(2, 10, 5, 5, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run with five hand-made source networks, of seeds 3 to 7."""
    folder = tmp_path / "sources"
    folder.mkdir()
    description = {"train": {"images": 12, "synthetic": True}}
    (folder / "config.json").write_text(json.dumps({"settings": SOURCE, "data": {"notmnist": description}}))
    (folder / "done.json").write_text(json.dumps({"test_accuracy_mean": 0.9, "made_with": {"torch": "2"}}))
    for seed in range(3, 8):
        weights = {"features.conv1.weight": conv1(seed), "features.conv2.weight": conv2(seed)}
        save_file(weights | {"features.conv1.bias": torch.ones(10)}, network_file(folder, seed))
    (tmp_path / "kernels").mkdir()
    return tmp_path


def collect(out: Path, stage: Kernels) -> tuple[KernelSet, dict]:
    done = stage.run(out / "kernels", Context(out=out))
    return KernelSet.load(out / "kernels"), done


def norms(kernels: Tensor) -> list[float]:
    return [pytest.approx(value, rel=1e-5) for value in kernels.flatten(1).norm(dim=1).tolist()]


def test_threshold_comes_from_the_fitting_networks_alone(out: Path) -> None:
    """The 95 % quantile of 1, …, 20 is 19.05; a quarter of it is 4.7625. The others' norms would move it 1000-fold."""
    found, done = collect(out, Kernels(validation_networks=1, test_networks=2))
    assert list(range(5, 21)) == norms(found.train)
    assert [1000 * norm for norm in range(21, 31)] == norms(found.validation)
    assert [1000 * norm for norm in range(31, 51)] == norms(found.test)
    assert found.test_network.tolist() == [6] * 10 + [7] * 10
    assert done["norm_threshold"] == 4.7625 and done["kept"] == round(46 / 50, 4)
    assert done["kernels"] == found.counts() == {"train": 16, "validation": 10, "test": 20}
    assert done["source"]["held_out_networks"] == {"validation": 1, "test": 2}
    assert done["source"] | {key: value for key, value in SOURCE.items() if key != "data"} == done["source"]
    assert (done["source"]["dataset"], done["source"]["images"], done["source"]["synthetic"]) == ("notmnist", 12, True)


@pytest.mark.parametrize(
    ("layer", "weight", "kind"),
    [
        ("features.conv1", None, "stem"),
        ("features.conv2", None, "dense"),
        ("features.conv2", torch.rand(10, 1, 5, 5), "depthwise"),
        ("features.conv2", torch.zeros(2, 10, 5, 5), ""),
    ],
)
def test_the_kind_of_layer_is_recorded(layer: str, weight: Tensor | None, kind: str, out: Path) -> None:
    if weight is not None:
        save_file(
            {"features.conv1.weight": conv1(3), "features.conv2.weight": weight}, network_file(out / "sources", 3)
        )
    assert collect(out, Kernels(layer=layer, min_norm=0, **HELD_OUT))[1]["source"]["kind"] == kind


def test_parts_are_whole_networks(out: Path) -> None:
    stage = Kernels(layer="features.conv2", min_norm=0, validation_networks=2, test_networks=1)
    found, done = collect(out, stage)
    for part, seeds in (("train", (3, 4)), ("validation", (5, 6)), ("test", (7,))):
        assert torch.equal(getattr(found, part), torch.cat([conv2(seed).view(20, 1, 5, 5) for seed in seeds]))
    assert done["kept"] == 1


def test_joint_kernels_keep_their_channels(out: Path) -> None:
    """The norm that is compared with the threshold is that of all channels together."""
    weak = conv2(5)
    weak[1] *= 0.01
    weak[0, 1:] *= 0.01
    save_file({"features.conv2.weight": weak}, network_file(out / "sources", 5))
    found, done = collect(out, JointKernels(layer="features.conv2", validation_networks=1, test_networks=1))
    assert torch.equal(found.train, torch.cat([conv2(3), conv2(4), weak[:1]]))
    assert torch.equal(found.validation, conv2(6)) and torch.equal(found.test, conv2(7))
    assert found.test_network.tolist() == [7, 7] and done["kept"] == 0.9


def test_a_cap_takes_some_kernels_of_each_network_at_random(out: Path) -> None:
    stage = Kernels(min_norm=0, per_network=4, **HELD_OUT)
    found, done = collect(out, stage)
    everything = conv1(7).flatten(1).norm(dim=1).tolist()
    picked = found.test.flatten(1).norm(dim=1).tolist()
    assert found.counts() == {"train": 12, "validation": 4, "test": 4} and done["kept"] == 1
    assert picked == sorted(picked) and set(picked) < set(everything) and len(set(picked)) == 4
    numbers = (found.train[:8, 0, 0, 0] * 7).round().int().view(2, 4) - 1
    assert len({tuple(row) for row in (numbers % 10).tolist()} | {(0, 1, 2, 3)}) == 3  # of each network others
    assert (numbers // 10).tolist() == [[0] * 4, [1] * 4]
    again, _ = collect(out, stage)
    assert torch.equal(again.train, found.train) and torch.equal(again.test, found.test)


@pytest.mark.parametrize("kind", [Kernels, JointKernels])
def test_a_cap_above_their_number_takes_all(out: Path, kind: type[Kernels]) -> None:
    stage = kind(layer="features.conv2", min_norm=0, **HELD_OUT)
    for cap in (20, 21):
        found, _ = collect(out, replace(stage, per_network=cap))
        assert torch.equal(found.train.flatten(), torch.cat([conv2(seed) for seed in (3, 4, 5)]).flatten())


def test_a_cap_counts_joint_kernels_whole(out: Path) -> None:
    for seed in range(3, 8):
        save_file({"a.weight": conv2(seed).view(4, 5, 5, 5)}, network_file(out / "sources", seed))
    found, _ = collect(out, JointKernels(layer="a", min_norm=0, per_network=3, **HELD_OUT))
    assert found.train.shape == (9, 5, 5, 5) and found.test.shape == (3, 5, 5, 5)
    for kernel in found.test:
        assert any(torch.equal(kernel, whole) for whole in conv2(7).view(4, 5, 5, 5))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Kernels(validation_networks=2, test_networks=3), "5 networks cannot leave 2 for validation, 3 for the test"),
        (Kernels(), "5 networks cannot leave 12 for validation, 16 .*lower kernels' validation_networks"),
        (Kernels(validation_networks=0, test_networks=1), "cannot leave 0 for validation"),
        (Kernels(validation_networks=1, test_networks=-1), "cannot leave 1 for validation, -1 for the test"),
        (Kernels(layer="conv1", **HELD_OUT), "no convolution 'conv1'; they have features.conv1, features.conv2"),
        (Kernels(per_network=0, **HELD_OUT), "per_network must be 1 or more; got 0"),
        (
            Kernels(min_norm=1.01, **HELD_OUT | {"test_networks": 2}),
            r"norm ≥ 19.24, min_norm=1.01 .*'train': 1, .*: lower min_norm",
        ),
    ],
)
def test_settings_that_leave_nothing_to_fit_or_test(out: Path, stage: Kernels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect(out, replace(stage, needs=("sources",)))
    assert not list((out / "kernels").iterdir())


@pytest.mark.parametrize("seed", [3, 7])
def test_a_diverged_network_is_named(out: Path, seed: int) -> None:
    weight = conv1(seed)
    weight[0, 0, 0, 0] = float("nan")
    save_file({"features.conv1.weight": weight}, network_file(out / "sources", seed))
    with pytest.raises(ValueError, match=f"features.conv1 of .*network-00{seed}.safetensors holds NaN"):
        collect(out, Kernels(validation_networks=1, test_networks=1))
