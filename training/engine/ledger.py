"""Runs of record: one JSON object a line, from which another machine resumes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dwp_init.storage import make_folder, write_bytes
from training.engine.records import RESULTS, Row, read_config, read_metrics, record_metrics
from training.engine.stage import Context


def ledger_file(name: str) -> str:
    """Returns the name of the file of a stage's runs, in the results of record."""
    return f"{name}_runs.jsonl"


@contextmanager
def kept_runs(folder: Path, context: Context, key: Sequence[str]) -> Iterator[None]:
    """Lets the sweep of a stage go on where another machine left it.

    Enters the runs of record that the folder lacks, if that is asked for, and leaves all runs to be recorded when the
    sweep ends, also if it is interrupted. Runs of record count if they have the same settings and data, and were made
    from the same files of earlier stages.

    Args:
        folder: The stage's folder.
        context: The context of the run.
        key: Names of the columns that identify a run.

    Raises:
        ValueError: All runs on record were made otherwise. They would not count, and ``--record`` would replace them.
    """
    file, made = ledger_file(folder.name), _made(folder)
    there = read_runs(RESULTS / file) if context.from_record else []
    taken = [{name: row[name] for name in row if name != "made"} for row in there if row.get("made") == made]
    if there and not taken:
        raise ValueError(
            f"all {len(there)} runs in {RESULTS / file} were made with other settings, from other data or from other "
            "files of earlier stages; leave out --from-record and --record, or remove the file to begin again"
        )
    known = {_values(row, key) for row in read_metrics(folder)}
    for row in taken:
        if _values(row, key) not in known:
            record_metrics(folder, **row)
    try:
        yield
    finally:
        if rows := read_metrics(folder):
            write_runs(folder / "record" / file, [{"made": made} | row for row in rows])


def _made(folder: Path) -> str:
    """Returns a digest of what a stage's runs depend on."""
    config = read_config(folder)
    made = [config["fingerprint"], config.get("made_from", {})]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def _values(row: Row, key: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in key)


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
