"""Listens to the calls of this process that change files: creating, renaming, removing, and waiting for the disk."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_WRITING = os.O_WRONLY | os.O_RDWR
_EVENTS = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "folder"}


@dataclass(frozen=True)
class Call:
    """A call that is about to be made.

    Args:
        kind: ``"create"`` opens a file to write, ``"append"`` to write at its end; ``"sync"`` is ``fsync`` of a file or
            a folder.
        path: What it changes.
        target: The new name.
    """

    kind: Literal["create", "append", "rename", "remove", "folder", "sync"]
    path: Path
    target: Path | None = None


Listener = Callable[[Call], object]
_listening: list[tuple[str, Listener]] = []  # of which the last one hears
_installed: list[bool] = []


@contextmanager
def listening(folder: Path, listener: Listener) -> Iterator[None]:
    """Tells a listener of calls below a folder before they are made; an error that it raises is that of the call.

    What the listener does itself is not heard.
    """
    if not _installed:
        sys.addaudithook(_heard)  # which cannot be removed
        _installed.append(True)
    real = os.fsync

    def fsync(handle: int) -> None:
        _tell("sync", os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    _listening.append((os.path.abspath(folder), listener))
    os.fsync = fsync
    try:
        yield
    finally:
        os.fsync = real
        _listening.pop()


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and flags & _WRITING and not flags & os.O_DIRECTORY:
            _tell("append" if flags & os.O_APPEND else "create", path)
    elif event in _EVENTS:
        _tell(_EVENTS[event], *arguments[: 2 if event == "os.rename" else 1])


def _tell(kind: Any, *paths: Any) -> None:
    if not _listening:
        return
    folder, listener = _listening.pop()
    try:
        names = [os.path.abspath(os.fsdecode(path)) for path in paths]
        if Path(names[-1]).is_relative_to(folder):
            listener(Call(kind, *map(Path, names)))
    finally:
        _listening.append((folder, listener))
