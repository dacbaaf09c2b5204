"""Runs of record: one JSON object a line, from which another machine resumes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dwp_init.storage import make_folder, write_bytes
from training.engine.records import RESULTS, Row, read_config, read_metrics, record_metrics
from training.engine.stage import Context, Stage


def ledger_file(name: str) -> str:
    """Returns the name of the file of a stage's runs, in the results of record."""
    return f"{name}_runs.jsonl"


@contextmanager
def kept_runs(stage: Stage, folder: Path, context: Context, key: Sequence[str]) -> Iterator[None]:
    """Lets the sweep of a stage go on where another machine left it.

    Enters the runs of record that the folder lacks, if that is asked for, and leaves all runs to be recorded when the
    sweep ends, also if it is interrupted. Runs of record count if they were made by the same edition of the stage on
    the same kind of device, with the same settings and data, and from the same files of earlier stages.

    Args:
        stage: The stage.
        folder: Its folder.
        context: The context of the run.
        key: Names of the columns that identify a run.

    Raises:
        ValueError: Runs on record were made otherwise. They would not count, and ``--record`` would replace them.
    """
    path, made = RESULTS / ledger_file(folder.name), _made(stage, folder, context)
    there = read_runs(path) if context.from_record else []
    others = sum(row.get("made") != made or not row.keys() >= set(key) for row in there)
    if others:
        raise ValueError(
            f"{others} of the {len(there)} runs in {path} were made otherwise than they would be now: with other "
            "settings, by an earlier edition, on another kind of device, from other data or other files of earlier "
            "stages; leave out --from-record and --record, name other stages with --only, or remove the file and "
            f"{folder} to begin again"
        )
    known = {_values(row, key) for row in read_metrics(folder, *key)}
    taken = [row for row in there if _values(row, key) not in known]
    for row in taken:
        record_metrics(folder, **{name: value for name, value in row.items() if name != "made"})
    if taken:
        print(f"{folder.name}: {len(taken)} runs are taken from the results of record")
    try:
        yield
    finally:
        if rows := read_metrics(folder):
            write_runs(folder / "record" / path.name, [{"made": made} | row for row in rows])


def _made(stage: Stage, folder: Path, context: Context) -> str:
    """Returns a digest of what a stage's runs depend on."""
    config = read_config(folder)
    made = [config["fingerprint"], config.get("made_from", {}), stage.edition, context.device.type]
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
