import json
import sys
import threading

import pytest
import torch
from safetensors.torch import load
from torch import nn

from dwp_init import storage
from dwp_init.storage import patiently, safetensors_bytes, write_bytes, write_json


def test_safetensors_bytes_are_what_safetensors_reads():
    kinds = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
    tensors = {f"{i}é": torch.randn(3, i).mul(9).to(kind) for i, kind in enumerate(kinds)}
    tensors |= {"scalar": torch.tensor(1.5), "strided": torch.randn(4, 6).T[::2], "grad": nn.Parameter(torch.ones(2))}
    content = safetensors_bytes(tensors, {"a": "b"})
    head = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:head])
    assert header.pop("__metadata__") == {"a": "b"} and head % 8 == 0
    assert all(header[name]["data_offsets"][0] % tensor.element_size() == 0 for name, tensor in tensors.items())
    found = load(content)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "x cannot be saved: expected a dense tensor with memory; got int"),
        (torch.empty(2, device="meta"), "got one on the meta device"),
        (torch.eye(2).to_sparse(), "got layout torch.sparse_coo"),
        (
            torch.zeros(2, dtype=torch.complex64),
            "x cannot be saved: its dtype is torch.complex64; the supported ones are F64, F32,",
        ),
    ],
)
def test_safetensors_bytes_errors(value, message):
    with pytest.raises(ValueError, match=message):
        safetensors_bytes({"x": value})


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    path, errors = tmp_path / "a.bin", []

    def write(letter):
        try:
            for _ in range(50):
                write_bytes(path, letter * 100_000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and [file.name for file in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() in (b"a" * 100_000, b"b" * 100_000, b"c" * 100_000)


def test_write_json(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "é": [\n    1,\n    null\n  ]\n}\n'.encode()


def open_elsewhere(path, times):
    """An act that fails as on Windows while another process has a file open, so many times."""
    left = [times]

    def act():
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "Access is denied", str(path))
        return path.read_bytes()

    return act


def test_files_that_others_have_open_are_tried_again_where_the_system_needs_it(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_bytes(path, b"a")
    assert patiently(open_elsewhere(path, 0)) == b"a"
    if sys.platform != "win32":
        with pytest.raises(PermissionError):
            patiently(open_elsewhere(path, 1))
    monkeypatch.setattr(storage, "_PAUSES", (0, 0))
    assert patiently(open_elsewhere(path, 2)) == b"a"
    with pytest.raises(PermissionError, match="Access is denied"):
        patiently(open_elsewhere(path, 3))
