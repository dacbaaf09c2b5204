import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.engine.run import run_stages
from training.engine.stage import Context
from training.kernels.checkpoints import network_file
from training.kernels.collect import JointKernels, Kernels
from training.kernels.kernelset import KernelSet
from training.kernels.read import KernelFile, read_kernels, read_reference

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


VALUES = torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("channels", [None, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_kernel_files(tmp_path: Path, suffix: str, channels: int | None, dtype: torch.dtype) -> None:
    values = VALUES.to(dtype)
    if channels:
        values = torch.stack([values + channel for channel in range(channels)], 1)
    path = tmp_path / f"kernels{suffix}"
    if suffix == ".npy":
        np.save(path, np.asfortranarray(values.numpy()))
    else:
        save_file({"w": values}, path)
    found = read_kernels(path)
    assert found.shape == (12, channels or 1, 3, 3) and found.dtype == torch.float32 and found.is_contiguous()
    assert torch.equal(found, values.float().view(found.shape))


def changed(values: Tensor, value: float) -> Tensor:
    values = values.clone()
    values[2, 1, 1] = values[5] = value
    return values


def save_npy(values: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, values.numpy() if isinstance(values, Tensor) else values)


def cut(suffix: str, length: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, VALUES.numpy()) if suffix == ".npy" else save_file({"w": VALUES}, path)
        path.write_bytes(path.read_bytes()[:length])

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("k.pt", lambda path: torch.save(VALUES, path), "a kernel file ends in .npy or .safetensors; got 'k.pt'"),
        ("k.npy", save_npy(np.array([{}] * 12, dtype=object)), "cannot be read .*save kernels .* with numpy.save"),
        ("k.npy", cut(".npy", 500), "cannot be read"),
        ("k.npy", cut(".npy", 50), "cannot be read"),
        ("k.npy", cut(".npy", 0), "cannot be read"),
        ("k.safetensors", cut(".safetensors", 500), "cannot be read"),
        ("k.safetensors", cut(".safetensors", 4), "cannot be read"),
        ("k.safetensors", cut(".safetensors", 0), "cannot be read"),
        (
            "k.safetensors",
            lambda path: save_file({"a": VALUES, "b": VALUES + 1}, path),
            r"holds 2 tensors \(a, b\); it must hold one",
        ),
        ("k.npy", save_npy(VALUES.int()), r"holds torch\.int32 values; kernels are floating-point"),
        ("k.npy", save_npy(VALUES[0, 0, 0]), r"has shape \(\); kernels have shape"),
        ("k.npy", save_npy(VALUES[0]), r"has shape \(3, 3\); kernels have shape"),
        ("k.npy", save_npy(VALUES[None, None]), r"has shape \(1, 1, 12, 3, 3\)"),
        ("k.npy", save_npy(VALUES[:, :2]), r"has shape \(12, 2, 3\)"),
        ("k.npy", save_npy(VALUES[:, :1, :1]), r"has shape \(12, 1, 1\); .*k 2 or more"),
        ("k.npy", save_npy(np.zeros((12, 0, 3, 3))), r"has shape \(12, 0, 3, 3\)"),
        ("k.npy", save_npy(VALUES[:9]), "holds 9 kernels; a fit with held-out parts needs 10 or more"),
        ("k.npy", save_npy(changed(VALUES, float("nan"))), "^2 of 12 kernels of .* hold NaN or, in float32, infinity"),
        ("k.npy", save_npy(changed(VALUES, float("-inf"))), "^2 of 12 kernels"),
        ("k.npy", save_npy(changed(VALUES, 1e300)), "^2 of 12 kernels"),
    ],
)
def test_kernel_file_errors(tmp_path: Path, name: str, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        read_kernels(tmp_path / name)


def split(path: Path, out: Path, **settings: float) -> KernelSet:
    return KernelSet.load(run_stages({"k": replace(KernelFile.of(path), **settings)}, Context(out=out))["k"])


def test_a_file_is_split_once_and_for_all(tmp_path: Path) -> None:
    path = tmp_path / "kernels.npy"
    np.save(path, np.arange(50, dtype=np.float32).repeat(9).reshape(50, 3, 3))
    found = split(path, tmp_path / "a")
    assert found.counts() == {"train": 40, "validation": 5, "test": 5}
    everything = torch.cat([found.train, found.validation, found.test])[:, 0, 0, 0]
    assert sorted(everything.tolist()) == list(range(50)) and found.test_network.tolist() == [-1] * 5
    assert torch.equal(found.test, split(path, tmp_path / "b").test)
    assert not torch.equal(found.test, split(path, tmp_path / "c", seed=1).test)


def test_the_smallest_file_leaves_two_kernels_in_each_part(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", VALUES[:10].numpy())
    assert split(tmp_path / "k.npy", tmp_path).counts() == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize("held_out", [0, 0.5, -1])
def test_too_much_held_out(tmp_path: Path, held_out: float) -> None:
    np.save(tmp_path / "k.npy", VALUES.numpy())
    with pytest.raises(ValueError, match=rf"lies in \(0, 0\.5\); got {held_out}"):
        split(tmp_path / "k.npy", tmp_path, held_out=held_out)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no kernel file .*none\.npy; give a \.npy or \.safetensors file"):
        KernelFile.of(tmp_path / "none.npy")


def numbered(n: int) -> Tensor:
    """Flat kernels of values 0 to n - 1."""
    return torch.arange(float(n)).view(-1, 1, 1, 1).repeat(1, 1, 3, 3)


def test_reference_of_a_kernels_stage(tmp_path: Path) -> None:
    """Samples are compared with what was fitted, and the test kernels count; those for choices are left out."""
    KernelSet(numbered(8), numbered(7), numbered(6), torch.zeros(6)).save(tmp_path)
    with pytest.raises(ValueError, match="holds 4 tensors"):
        read_reference(tmp_path / "kernels.safetensors")
    (tmp_path / "done.json").write_text("{}")
    train, test = read_reference(tmp_path / "kernels.safetensors")
    assert torch.equal(train, numbered(8)) and torch.equal(test, numbered(6))


@pytest.mark.parametrize("name", ["mine.npy", "mine.safetensors", "kernels.safetensors"])
def test_reference_of_a_file_is_two_halves(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    np.save(path, numbered(21).numpy()) if path.suffix == ".npy" else save_file({"w": numbered(21)}, path)
    halves = [part[:, 0, 0, 0].tolist() for part in read_reference(path)]
    assert [len(half) for half in halves] == [11, 10] and sorted(halves[0] + halves[1]) == list(range(21))
    assert halves[0] != sorted(halves[0])  # at random
    assert [part[:, 0, 0, 0].tolist() for part in read_reference(path)] == halves


def test_no_reference(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "kernels.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"no kernel file .*; give a \.npy or \.safetensors file"):
            read_reference(path)
    np.save(tmp_path / "k.npy", numbered(9).numpy())
    with pytest.raises(ValueError, match="holds 9 kernels"):
        read_reference(tmp_path / "k.npy")
