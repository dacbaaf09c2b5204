"""A prior's folder: two files that are replaced together, so that it holds a whole prior at every moment."""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import cast

from dwp_init.storage import is_temporary, make_folder, patiently, remove, sync_folder, write_files

CONFIG, MODEL = "config.json", "model.safetensors"
MAX_BYTES = {CONFIG: 2**20, MODEL: 2**30}
"""The largest files that are read, in bytes."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WAITING = f".{MODEL}."  # and the digest: tensors whose configuration has its name, or is about to take it
_ABANDONED = 3600.0  # seconds, after which no writer is at work on a file
_READS, _WRITES = 1000, 100  # after which a folder that somebody rewrites all the time is an error


def write_prior(folder: Path, config: bytes, model: bytes) -> None:
    """Replaces the files of a prior, or writes them into a new folder.

    Two files cannot be renamed at once. The new tensors are stored under a hidden name that contains their digest.
    Then the new configuration, which states the digest, takes its name: from this moment on the folder holds the new
    prior, for :func:`read_files` finds tensors by the digest. Last, the tensors take their name; if they cannot, for
    instance because Windows has the old ones open, they keep the hidden one. A kill or a loss of power leaves the old
    prior before that moment and the new one after it. One process writes at a time, where folders can be locked;
    elsewhere the last of several writers makes the folder whole, unless it is killed meanwhile: then save again.

    Raises:
        OSError: A file cannot be written; the old prior stays. Or others write all the time.
    """
    make_folder(folder)
    with _alone_in(folder) as alone:
        for _ in range(_WRITES):
            _write(folder, config, model, alone)
            if alone or _is_whole(folder):
                return
    raise OSError(f"others write to {folder} all the time, and it cannot be locked; wait until they have finished")


def _write(folder: Path, config: bytes, model: bytes, alone: bool) -> None:
    waiting = folder / f"{_WAITING}{_digest(model)}"
    try:
        write_files({waiting: model})
        write_files({folder / CONFIG: config})
        with contextlib.suppress(OSError):
            patiently(lambda: waiting.replace(folder / MODEL))
            sync_folder(folder)
    finally:
        with contextlib.suppress(OSError):
            _sweep(folder, waiting, alone)


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds the tensors that its configuration states."""
    try:
        found = read_files(folder)
    except FileNotFoundError:
        return False
    return stated_digest(found[CONFIG]) in (None, _digest(found[MODEL]))


def read_files(folder: Path) -> dict[str, bytes]:
    """Reads the two files of a prior, by name; both are of one prior, also while another process replaces them.

    Raises:
        FileNotFoundError: One is missing.
        ValueError: One is larger than :data:`MAX_BYTES`, or the folder changes all the time.
    """
    seen: tuple[bytes, str | None] | None = None
    for _ in range(_READS):
        config = read_bounded(folder / CONFIG, CONFIG)
        stated, found = stated_digest(config), None
        for path in (folder / MODEL, folder / f"{_WAITING}{stated}"):
            try:
                model = read_bounded(path, MODEL)
            except FileNotFoundError:
                continue
            found = _digest(model)
            unchanged = stated == found or (stated is None and config == read_bounded(folder / CONFIG, CONFIG))
            if unchanged:
                return {CONFIG: config, MODEL: model}
        if seen == (config, found):  # not a moment between two names
            return {CONFIG: config, MODEL: read_bounded(folder / MODEL, MODEL)}
        seen = config, found
    raise ValueError(f"{folder} changed {_READS} times while it was read; wait until it is written")


def read_bounded(path: Path, name: str) -> bytes:
    """Reads a file of a prior.

    Args:
        path: The file.
        name: Which of the two it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger than :data:`MAX_BYTES`; nothing was read.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError
        check_size(path.stat().st_size, name, path)
        return patiently(path.read_bytes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; a prior's folder holds {CONFIG} and {MODEL}") from error


def check_size(size: int, name: str, owner: object, most: int | None = None) -> None:
    """Raises ``ValueError`` if a file is larger than it may be.

    Args:
        size: In bytes.
        name: Which of the two files it is.
        owner: How the error calls it.
        most: How large it may be, where that is known better than by :data:`MAX_BYTES`.
    """
    if size > (allowed := MAX_BYTES[name] if most is None else most):
        raise ValueError(f"{owner} has {size:,} bytes; a {name} may have at most {allowed:,} here: check the prior")


def stated_digest(config: bytes) -> str | None:
    """Returns the digest of the tensors that a configuration states, if it states one and can be parsed."""
    with contextlib.suppress(ValueError, RecursionError):
        parsed: object = json.loads(config)
        stated = cast(dict[str, object], parsed).get("model_sha256") if isinstance(parsed, dict) else None
        return stated if isinstance(stated, str) and _SHA256.fullmatch(stated) else None
    return None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Generator[bool, None, None]:
    """Keeps other writers out of a folder, and says whether the system can; the lock leaves no file."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = False
        with contextlib.suppress(OSError):  # some network file systems cannot
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        yield locked
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile has the handle too
        os.close(handle)


def _sweep(folder: Path, own: Path, alone: bool) -> None:
    """Removes what killed writers left, but not the tensors that the configuration states.

    Args:
        folder: The folder.
        own: The tensors of this writer.
        alone: Whether nobody else can be writing; if not, other files are left for an hour.
    """
    config = folder / CONFIG
    stated = stated_digest(config.read_bytes()) if config.is_file() else None
    left = [path for name in (CONFIG, MODEL) for path in folder.glob(f".*{name}.*.tmp") if is_temporary(path)]
    waiting = [path for path in folder.glob(f"{_WAITING}*") if _SHA256.fullmatch(path.name.removeprefix(_WAITING))]
    for path in [*left, *waiting]:
        free = alone or path == own or time.time() - path.stat().st_mtime > _ABANDONED
        if free and path.name != f"{_WAITING}{stated}":
            remove(path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
