"""Files written whole or not at all, as plain bytes, JSON or safetensors; needs no numpy."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: first a temporary file next to it, which then takes its name."""
    write_files({path: content})


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON whole or not at all."""
    write_bytes(path, json_bytes(content))


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes each file whole or not at all, and renames the temporary ones only once all of them are written."""
    temporaries = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with temporaries[path].open("xb") as file:
                file.write(content)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def json_bytes(content: Any, allow_nan: bool = True) -> bytes:
    """Packs a value as indented JSON in UTF-8, with a line break at the end.

    Raises:
        TypeError: A part of it is not JSON.
        ValueError: It holds a NaN and ``allow_nan`` is ``False``, refers to itself, or is not valid Unicode.
    """
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n").encode()


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Packs tensors as a safetensors file; unlike ``safetensors.torch.save`` it needs no numpy.

    Args:
        tensors: By name, on any device. Of tensors that share memory, pass only one.
        metadata: Stored in the file's header.

    Raises:
        ValueError: A value is not a dense tensor with memory, or its dtype is not supported.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.layout is not torch.strided:
            raise ValueError(f"{name} cannot be saved: expected a dense tensor with memory; got {_describe(tensor)}")
        if tensor.dtype not in _DTYPES:
            known = ", ".join(_DTYPES.values())
            raise ValueError(f"{name} cannot be saved: its dtype is {tensor.dtype}; the supported ones are {known}")
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    packed: list[bytearray] = []
    end = 0
    for name in names:
        packed.append(tensor_bytes(tensors[name]))
        start, end = end, end + len(packed[-1])
        dtype, shape = _DTYPES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *packed])


def tensor_bytes(tensor: Tensor) -> bytearray:
    """Returns a tensor's values in row-major order, in this machine's byte order."""
    packed = bytearray(tensor.numel() * tensor.element_size())
    if packed:
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        torch.frombuffer(packed, dtype=torch.uint8).copy_(flat)
    return packed


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return "one on the meta device" if value.is_meta else f"layout {value.layout}"
