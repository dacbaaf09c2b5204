"""Runs of record: one JSON object a line, from which another machine resumes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dwp_init.storage import make_folder, write_bytes
from training.engine.records import Row, read_metrics, record_metrics


def write_runs(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows of any keys, in full or not at all."""
    make_folder(path.parent)
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_runs(path: Path) -> list[Row]:
    """Reads rows written by :func:`write_runs`; none where there is no file.

    Raises:
        ValueError: A line is not a JSON object.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [_row(path, number, line) for number, line in enumerate(lines, start=1)]


def take_runs(path: Path, folder: Path, of_now: Callable[[Row], bool], key: Callable[[Row], Any]) -> int:
    """Enters the runs of record that the metrics of a stage's folder lack; returns their number.

    Args:
        path: The file of record.
        folder: The stage's folder.
        of_now: Whether a run was made with the present settings.
        key: What identifies a run.
    """
    there = {key(row) for row in read_metrics(folder) if of_now(row)}
    taken = [row for row in read_runs(path) if of_now(row) and key(row) not in there]
    for row in taken:
        record_metrics(folder, **row)
    return len(taken)


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} of {path} is not a JSON object: {line[:40]!r}; restore the file")
    return row
