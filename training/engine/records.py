"""Files in a stage's folder: metrics by line, checkpoints, summaries, and the tables of record."""

import csv
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import torch

from dwp_init.storage import is_sealed, sealed_json, write_bytes
from dwp_init.text import aligned

ROOT = Path(__file__).parents[2]  # of the clone
RESULTS = ROOT / "training" / "results"
STAGE_CONFIG, _METRICS, DONE = "config.json", "metrics.jsonl", "done.json"
_SEAL, _OUTPUTS = "sha256", "outputs"  # in the last: its own digest, and those of all other files

Row = dict[str, Any]


def record_metrics(folder: Path, **metrics: Any) -> None:
    """Appends one line to the stage's ``metrics.jsonl``, and waits until it is on the disk."""
    path = folder / _METRICS
    cut_short = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_short + json.dumps(metrics) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_metrics(folder: Path) -> list[Row]:
    """Reads the lines of ``metrics.jsonl``; a line cut short by a kill is left out."""
    path = folder / _METRICS
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def order_metrics(folder: Path, rows: Sequence[Row]) -> None:
    """Puts these lines of ``metrics.jsonl`` into the order of ``rows``, in the places that they take together.

    Jobs on several processes end in any order; what they leave behind should not tell.
    """
    found = [json.dumps(row) for row in read_metrics(folder)]
    place = {line: number for number, line in enumerate(found)}
    lines = [json.dumps(row) for row in rows]
    for number, line in zip(sorted(place[line] for line in lines), lines, strict=True):
        found[number] = line
    text = "".join(line + "\n" for line in found).encode()
    if rows and text != (folder / _METRICS).read_bytes():
        write_bytes(folder / _METRICS, text)


def read_config(folder: Path) -> dict[str, Any]:
    """Reads what a stage was made from: its settings, and the digests of its data."""
    return _read_json(folder / STAGE_CONFIG)


def read_done(folder: Path) -> dict[str, Any]:
    """Reads the summary of a finished stage."""
    return {key: value for key, value in _read_json(folder / DONE).items() if key not in (_SEAL, _OUTPUTS)}


def write_done(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a stage, which is thereby finished, with digests of its files and of the summary."""
    outputs = {path.relative_to(folder).as_posix(): _sha256(path) for path in _outputs(folder)}
    write_bytes(folder / DONE, sealed_json({**summary, _OUTPUTS: outputs}, _SEAL, allow_nan=True))


def check_outputs(folder: Path) -> None:
    """Checks that the files of a finished stage are as it left them; those of an older version state no digests.

    Raises:
        ValueError: One has changed, or is missing.
    """
    way_out = f"restore it, or remove {folder} to make it again"
    for name, stated in _read_json(folder / DONE).get(_OUTPUTS, {}).items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing, which {DONE} names; {way_out}")
        if (found := _sha256(folder / name)) != stated:
            raise ValueError(f"{folder / name} has changed: its sha256 is {found}, {DONE} states {stated}; {way_out}")


def _outputs(folder: Path) -> list[Path]:
    """Returns the files of a stage; hidden ones, such as its lock, are not its result."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / DONE]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _sha256(path: Path) -> str:
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
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} has another checksum")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a complete checkpoint; remove it to start that part again") from error
    return state


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of equal keys as CSV, in full or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
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
