"""Files written whole or not at all, as plain bytes, JSON or safetensors; needs no numpy."""

import errno
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

_Found = TypeVar("_Found")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # the names that write_files gives
_UNSEALED = "0" * 64
_HEADER, _ENTRY = 2**16, 2**10  # bytes of a safetensors header, besides names: most for metadata, and for each tensor
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)  # file systems, and a folder not to read
_PAUSES = tuple(0.01 * 2**n for n in range(8)) if sys.platform == "win32" else ()  # seconds, 2.5 together
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
    """Writes each file whole or not at all, and renames the temporary ones only once all of them are written.

    Contents reach the disk before names do, and names before this returns, so a loss of power leaves no file empty.
    """
    temporaries = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with temporaries[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            patiently(partial(temporary.replace, path))
        for folder in {path.parent for path in contents}:
            sync_folder(folder)
    finally:
        for temporary in temporaries.values():
            remove(temporary)


def remove(path: Path) -> None:
    """Removes a file, if it is there."""
    patiently(lambda: path.unlink(missing_ok=True))


def patiently(act: Callable[[], _Found]) -> _Found:
    """Reads, replaces or removes a file; on Windows it tries again for some seconds if another process has it open.

    Virus scanners and indexers do so too, for moments.

    Raises:
        PermissionError: It is open all the time, or may not be changed.
    """
    for pause in _PAUSES:
        try:
            return act()
        except PermissionError:
            time.sleep(pause)
    return act()


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can; Windows and some others have no call."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, unless they are there, and waits until their names are on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a killed :func:`write_files` left; nobody else gives such names."""
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


def json_bytes(content: Any, allow_nan: bool = True) -> bytes:
    """Packs a value as indented JSON in UTF-8, with a line break at the end.

    Raises:
        TypeError: A part of it is not JSON.
        ValueError: It holds a NaN and ``allow_nan`` is ``False``, refers to itself, or is not valid Unicode.
    """
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n").encode()


def sealed_json(content: Mapping[str, Any], seal: str, allow_nan: bool = False) -> bytes:
    """Packs an object as JSON that begins with its own digest, under the key ``seal``.

    It is the SHA-256 of the file with zeros in the place of the digest, so that it covers every byte.

    Raises:
        TypeError, ValueError: As for :func:`json_bytes`.
    """
    return _sealed(json_bytes({seal: _UNSEALED} | dict(content) | {seal: _UNSEALED}, allow_nan))


def sealed_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], seal: str) -> bytes:
    """Packs tensors as a safetensors file whose metadata begins with the file's digest, as in :func:`sealed_json`.

    Raises:
        ValueError: As for :func:`safetensors_bytes`.
    """
    return _sealed(safetensors_bytes(tensors, {seal: _UNSEALED, **metadata}))


def _sealed(blank: bytes) -> bytes:
    return blank.replace(_UNSEALED.encode(), _digest(blank).encode(), 1)


def is_sealed(content: bytes, stated: object) -> bool:
    """Whether a file is as :func:`sealed_json` or :func:`sealed_safetensors` packed it.

    Args:
        content: The file.
        stated: The digest that stands in it.
    """
    if not isinstance(stated, str) or not re.fullmatch(r"[0-9a-f]{64}", stated):
        return False
    return _digest(content.replace(stated.encode(), _UNSEALED.encode(), 1)) == stated


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


def largest_file(tensors: Mapping[str, Tensor]) -> int:
    """Returns how large a safetensors file of such tensors can be, in bytes: their values, and a header."""
    values = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return values + _HEADER + sum(len(name) + _ENTRY for name in tensors)


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
