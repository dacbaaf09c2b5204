"""Files in a stage's folder: metrics by line, checkpoints, summaries, and the tables of record."""

import csv
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import torch

from dwp_init.storage import is_sealed, make_folder, sealed_json, sync_folder, write_bytes
from dwp_init.text import aligned

ROOT = Path(__file__).parents[2]  # of the clone
RESULTS = ROOT / "training" / "results"
STAGE_CONFIG, _METRICS, DONE = "config.json", "metrics.jsonl", "done.json"
_SEAL, _OUTPUTS = "sha256", "outputs"  # in the last: its own digest, and those of all other files
_DENSEST = 10  # how many times the size of an archive its files may have: weights hardly shrink, and torch stores them
_ORIGIN = "made_with"  # in all summaries, also in those of older versions, which have no digests

Row = dict[str, Any]


def record_metrics(folder: Path, **metrics: Any) -> None:
    """Appends one line to the stage's ``metrics.jsonl``, and waits until it is on the disk.

    A line is a pair of a checksum and a row, so that a damaged row is not taken for another one.
    """
    with (folder / _METRICS).open("a+b") as file:
        if not file.tell():
            sync_folder(folder)
        else:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # cut short
                file.write(b"\n")
        file.write(_line(metrics).encode())
        file.flush()
        os.fsync(file.fileno())


def read_metrics(folder: Path, *needed: str) -> list[Row]:
    """Reads the rows of ``metrics.jsonl``; leaves out a line that is damaged, or was cut short by a kill.

    Rows of older versions have no checksum.

    Raises:
        ValueError: A row lacks one of the entries that are needed.
    """
    path = folder / _METRICS
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            found = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(found, list) and len(found) == 2 and isinstance(found[1], dict):
            rows += [found[1]] if found[0] == _checksum(found[1]) else []
        elif isinstance(found, dict):
            rows.append(found)
    if not all(row.keys() >= set(needed) for row in rows):
        raise ValueError(
            f"{path} has rows without {', '.join(needed)}, so it is of another stage; restore it, or remove it to make "
            "the rows again"
        )
    return rows


def write_metrics(folder: Path, rows: Sequence[Row]) -> None:
    """Replaces all lines of ``metrics.jsonl``, if they are not those of the rows already."""
    path, content = folder / _METRICS, "".join(map(_line, rows)).encode()
    if content != (path.read_bytes() if path.exists() else b""):
        write_bytes(path, content)


def order_metrics(folder: Path, rows: Sequence[Row]) -> None:
    """Puts these lines of ``metrics.jsonl`` into the order of ``rows``, in the places that they take together.

    Jobs on several processes end in any order; what they leave behind should not tell.
    """
    found = list(
        {json.dumps(row): row for row in read_metrics(folder)}.values()
    )  # a row that is there twice counts once
    place = {json.dumps(row): number for number, row in enumerate(found)}
    for number, row in zip(sorted(place[json.dumps(row)] for row in rows), rows, strict=True):
        found[number] = row
    write_metrics(folder, found)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps([_checksum(row), row]) + "\n"


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def read_config(folder: Path) -> dict[str, Any]:
    """Reads what a stage was made from: its settings, and the digests of its data."""
    return _read_json(folder / STAGE_CONFIG)


def read_done(folder: Path, *needed: str) -> dict[str, Any]:
    """Reads the summary of a finished stage.

    Raises:
        ValueError: It is damaged, or lacks one of the entries that are needed.
    """
    found = {key: value for key, value in _read_json(folder / DONE).items() if key not in (_SEAL, _OUTPUTS)}
    if missing := [key for key in needed if key not in found]:
        raise ValueError(
            f"{folder / DONE} has no {', '.join(missing)}, so it is no summary of this stage; restore it, or remove "
            f"{folder} to make it again"
        )
    return found


def write_done(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a stage, which is thereby finished, with digests of its files and of the summary."""
    outputs = {path.relative_to(folder).as_posix(): file_sha256(path) for path in _outputs(folder)}
    write_bytes(folder / DONE, sealed_json({**summary, _OUTPUTS: outputs}, _SEAL, allow_nan=True))


def outputs_digest(folder: Path) -> str | None:
    """Returns a digest of the files that a finished stage left; None if it is of a version that states none.

    Its configuration and its metrics do not count, because they say when and where it ran.
    """
    outputs = _read_json(folder / DONE).get(_OUTPUTS)
    if outputs is None:
        return None
    made = {name: digest for name, digest in outputs.items() if name not in (STAGE_CONFIG, _METRICS)}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def check_outputs(folder: Path) -> None:
    """Checks that the files of a finished stage are as it left them; those of an older version state no digests.

    Raises:
        ValueError: One has changed, or is missing; or the summary is none, such as a copy of another file.
    """
    way_out = f"restore it, or remove {folder} to make it again"
    summary = _read_json(folder / DONE)
    if not summary.keys() & {_OUTPUTS, _ORIGIN}:
        raise ValueError(f"{folder / DONE} does not say what it was made with, so it is no summary; {way_out}")
    for name, stated in summary.get(_OUTPUTS, {}).items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing, which {DONE} names; {way_out}")
        if (found := file_sha256(folder / name)) != stated:
            raise ValueError(f"{folder / name} has changed: its sha256 is {found}, {DONE} states {stated}; {way_out}")


def _outputs(folder: Path) -> list[Path]:
    """Returns the files of a stage; hidden ones, such as its lock, are not its result."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / DONE]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def is_as_stated(path: Path, sha256: str | None) -> bool:
    """Whether a file is there and has this digest; rows of older versions state none."""
    return path.is_file() and sha256 in (None, file_sha256(path))


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, of which a part at a time is in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """Reads an object; raises ``ValueError`` that names the file if it is none, or differs from its own digest."""
    content = path.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    sealed = isinstance(found, dict) and (_SEAL in found or _OUTPUTS in found)
    if not isinstance(found, dict) or (sealed and not is_sealed(content, found.get(_SEAL))):
        raise ValueError(f"{path} is damaged; restore it, or remove {path.parent} to make it again")
    return found


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Saves a state to resume from, in full or not at all."""
    packed = io.BytesIO()
    torch.save(state, packed)
    write_bytes(path, packed.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a state to resume from, on the CPU, if every checksum in the file holds.

    Raises:
        ValueError: The file is broken.
    """
    try:
        check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a complete checkpoint; remove it to start that part again") from error
    return state


def check_archive(path: Path) -> None:
    """Reads all of a zip archive, as ``torch.save`` writes them, and compares it with the checksums that it states.

    Raises:
        zipfile.BadZipFile: One does not hold, the file is no archive, or it would unpack to far more than its size. A
            checksum of 0 is none: torch can be told so.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if unpacked > _DENSEST * size:
            raise zipfile.BadZipFile(f"it would unpack to {unpacked:,} bytes, more than {_DENSEST} times its {size:,}")
        for entry in archive.infolist():
            if entry.CRC:
                with archive.open(entry) as content:
                    while content.read(2**20):
                        pass


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of equal keys as CSV, in full or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    make_folder(path.parent)
    write_bytes(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Reads a table written by :func:`write_table`, every cell as text.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {path}; run the recipe that records it, see python -m training list")
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows of equal keys as an aligned table."""
    print(indent(aligned([tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)]), "  "))
