from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.engine.run import run_stages
from training.engine.stage import Context, StageChangedError
from training.kernels.kernelset import KernelSet
from training.kernels.read import KernelFile, read_kernels, read_reference

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
        ("k.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'a': (\n"), "cannot be read"),
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


def test_the_digest_tells_a_file_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("k.npy", VALUES.numpy())
    out, elsewhere = Context(out=tmp_path / "out"), tmp_path / "elsewhere" / "other.npy"
    config = run_stages({"k": KernelFile.of(Path("k.npy"))}, out)["k"] / "config.json"
    before = config.read_bytes()
    elsewhere.parent.mkdir()
    Path("k.npy").rename(elsewhere)
    run_stages({"k": KernelFile.of(elsewhere)}, out)
    assert "reused" in capsys.readouterr().out.splitlines()[-1] and config.read_bytes() == before
    np.save(elsewhere, 2 * VALUES.numpy())
    with pytest.raises(
        StageChangedError, match=r"settings\.path is 'k\.npy' there, '.*other\.npy' now; settings\.sha256"
    ):
        run_stages({"k": KernelFile.of(elsewhere)}, out)


def test_the_smallest_file_leaves_two_kernels_in_each_part(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", VALUES[:10].numpy())
    assert split(tmp_path / "k.npy", tmp_path).counts() == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize("held_out", [0, 0.5, -1])
def test_too_much_held_out(tmp_path: Path, held_out: float) -> None:
    np.save(tmp_path / "k.npy", VALUES.numpy())
    with pytest.raises(ValueError, match=rf"must lie in \(0, 0\.5\); got {held_out}"):
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
    (tmp_path / "done.json").write_text('{"made_with": {}}')
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
