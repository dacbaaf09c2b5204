"""What stages leave in a folder, as bytes that two runs can be compared by."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_OF_THE_RUN = ("made_with", "sha256", "outputs")  # how long it took, and digests, which are checked by themselves


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder, by relative path, except locks."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def results(folder: Path) -> dict[str, bytes]:
    """Returns the same, without what the summaries of two runs differ in: their time, and digests of what has times."""
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


def entries(name: str, content: bytes) -> list[tuple[str, object]]:
    """Returns what a file holds by the key or the column that it has there, in order; a file of another kind whole.

    Args:
        name: The name of the file.
        content: Its bytes.
    """
    if name.endswith((".json", ".jsonl")):
        return [entry for text in (content.splitlines() if name[-1] == "l" else [content]) for entry in _of(text, name)]
    if name.endswith(".csv"):
        rows = csv.DictReader(io.StringIO(content.decode()))
        return [(name, tuple(rows.fieldnames or ())), *(entry for row in rows for entry in row.items())]
    return [(name, content)]


def _of(text: bytes, name: str) -> list[tuple[str, object]]:
    """The entries of a document, without the checksum that rows have; one that is cut short is one entry."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return [(name, text)]
    with_checksum = isinstance(found, list) and [type(each) for each in found] == [str, dict]
    return list(_values(found[1] if with_checksum else found, name))


def _values(found: Any, key: str) -> Iterator[tuple[str, object]]:
    if found and isinstance(found, dict):
        for name, value in found.items():
            yield from _values(value, name)
    elif found and isinstance(found, list):
        for value in found:
            yield from _values(value, key)
    else:
        yield key, found


def _plain(content: bytes) -> bytes:
    summary = json.loads(content)
    return json.dumps({key: value for key, value in summary.items() if key not in _OF_THE_RUN}).encode()
