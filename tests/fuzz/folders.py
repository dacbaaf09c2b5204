"""What stages leave in a folder, as bytes that two runs can be compared by."""

import json
from collections.abc import Mapping
from pathlib import Path

_OF_THE_RUN = ("made_with", "sha256")  # how long it took, and the digest of that


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder, by relative path, except locks."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def results(folder: Path) -> dict[str, bytes]:
    """Returns the same, without what differs between two runs: their time, and the digest of a summary that has it."""
    return {
        name: _plain(content) if name.endswith("done.json") else content for name, content in contents(folder).items()
    }


def restore(files: Mapping[str, bytes | None], folder: Path) -> None:
    """Writes files of :func:`contents` into a folder; None is a file that is missing."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)


def differing(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Names of the files that only one of two folders has, or that differ."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def _plain(content: bytes) -> bytes:
    summary = json.loads(content)
    return json.dumps({key: value for key, value in summary.items() if key not in _OF_THE_RUN}).encode()
