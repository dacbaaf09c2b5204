"""State dicts in every nesting, their order, and files that would run code or hold none."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.kernels.formats import state_dicts
from training.kernels.formats.base import Entry
from training.kernels.formats.state_dicts import StateDictFormat

A, B = torch.arange(54.0).view(2, 3, 3, 3), torch.ones(4)


def read(path: Path, content: object, **options: Any) -> dict[str, Tensor]:
    """Saves an object and reads its tensors, by both methods."""
    torch.save(content, path, **options)
    entries = StateDictFormat().entries(path)
    with StateDictFormat().open(path) as tensor:
        found = {name: tensor(name).clone() for name in entries}
    assert [tuple(value.shape) for value in found.values()] == [entry.shape for entry in entries.values()]
    return found


@pytest.mark.parametrize("zipped", [True, False])
def test_order_of_declaration_types_and_values(tmp_path: Path, zipped: bool) -> None:
    state = OrderedDict({"z": A, "a": B.half(), "m": A.bfloat16()})
    path = tmp_path / "net.pth"
    found = read(path, state, _use_new_zipfile_serialization=zipped)
    assert list(found) == ["z", "a", "m"] and all(torch.equal(found[name], state[name]) for name in state)
    assert StateDictFormat().entries(path)["m"] == Entry("BF16", (2, 3, 3, 3), path, layout="", groups=None)


OPTIMIZER = {"state": {0: {"exp_avg": B}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"state_dict": {"module.a": A}, "optimizer": OPTIMIZER, "epoch": 3}, ["state_dict.module.a"]),
        ({"params": {"a": A}, "params_ema": {"a": A}}, ["params_ema.a"]),
        ({"params": {"a": A, "b": A}, "net": {"a": A}, "params_ema": {"a": A}}, ["params.a", "params.b"]),
        ({"model": {"a": A}, "ema": {"decay": B, "num_updates": B}}, ["model.a"]),
        ({"model": {"a": A}, "ema": {"decay": 0.9}}, ["model.a"]),  # an average without tensors is none
        ({"ema": {"module": {"a": A}}, "state_dict": {"a": B}, "critic": {"b": B}}, ["ema.module.a", "critic.b"]),
        ({"generator": {"a": A}, "critic": {"a": B}}, ["generator.a", "critic.a"]),
        ({"model": {"a": A}, "critic": {"b": B}, "optim_g": OPTIMIZER}, ["model.a", "critic.b"]),
        ({"a": A, "state_dict": {"b": B}, "model": 1, "optim.weight": B}, ["a", "state_dict.b", "optim.weight"]),
        ({"a": nn.Parameter(A), "n": 3, "none": None}, ["a"]),
        ({}, []),
    ],
)
def test_nested_dicts(tmp_path: Path, content: dict[str, Any], names: list[str]) -> None:
    found = read(tmp_path / "net.pt", content)
    assert list(found) == names and not any(value.requires_grad for value in found.values())


def test_tensors_without_values_are_described(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"meta": A.to("meta"), "sparse": B.to_sparse(), "bytes": B.to(torch.int8)}, path)
    dtypes = {name: entry.dtype for name, entry in StateDictFormat().entries(path).items()}
    assert dtypes == {"meta": "META", "sparse": "SPARSE_COO", "bytes": "I8"}


class Trap:
    """Writes a file where its pickle is read without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_code_is_run(tmp_path: Path) -> None:
    path, trap = tmp_path / "net.bin", Trap(tmp_path / "sprung")
    for save in (torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))):
        save({"a": A, "trap": trap}, path)
        with pytest.raises(
            ValueError, match=r"net\.bin cannot be read without running code, or is broken .*; save its"
        ):
            StateDictFormat().entries(path)
    assert not trap.path.exists()
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    with pytest.raises(ValueError, match=r"broken \(it holds a torch.nn.modules.conv.Conv2d\); save its state dict"):
        StateDictFormat().entries(path)


@pytest.mark.parametrize("length", [0, 4, 300, -1])
def test_broken_files(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.ckpt"
    torch.save({"a": A}, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"cut\.ckpt cannot be read without running code, or is broken"):
        StateDictFormat().entries(path)


def test_a_checksum_that_does_not_hold(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2, 1, 3, 3)}, tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "net.pt").write_bytes(content.replace(b"\x00\x00\x80\x3f", b"\x00\x00\x81\x3f", 1))
    with pytest.raises(ValueError, match=r"net.pt cannot be read without running code, or is broken \(Bad CRC-32"):
        StateDictFormat().entries(tmp_path / "net.pt")


def test_dicts_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(read(tmp_path / "net.pth", {"a": (shared := {"w": A}), "b": shared})) == ["a.w", "b.w"]
    monkeypatch.setattr(state_dicts, "MOST_ENTRIES", 1000)
    doubled: dict[str, Any] = {"w": A}
    for _ in range(16):
        doubled = {"a": doubled, "b": doubled}
    circle: dict[str, Any] = {"w": A}
    circle["in"] = circle
    for content in (doubled, circle):
        with pytest.raises(ValueError, match=r"net\.pth has more than 1,000 entries, or dicts that are 32 deep"):
            read(tmp_path / "net.pth", content)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_no_state_dict(tmp_path: Path) -> None:
    torch.save([A], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds list, not a state dict; save model\.state_dict\(\) instead"):
        StateDictFormat().entries(tmp_path / "list.pt")
    torch.jit.save(torch.jit.trace(nn.Identity(), A), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script\.pt cannot be read without running code"):
        StateDictFormat().entries(tmp_path / "script.pt")


def test_an_old_torch_reads_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": A}, tmp_path / "net.pt")
    monkeypatch.setattr(state_dicts, "OLDEST_TORCH", "99.1")
    with pytest.raises(ValueError, match=r"torch .* cannot read safely; install torch 99\.1 or newer, or convert"):
        StateDictFormat().entries(tmp_path / "net.pt")
