"""Files in a stage's folder: metrics by line, checkpoints, summaries, and the tables of record."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import torch

from dwp_init.storage import write_bytes
from dwp_init.text import aligned

ROOT = Path(__file__).parents[2]  # of the clone
RESULTS = ROOT / "training" / "results"
STAGE_CONFIG, _METRICS, DONE = "config.json", "metrics.jsonl", "done.json"

Row = dict[str, Any]


def record_metrics(folder: Path, **metrics: Any) -> None:
    """Appends one line to the stage's ``metrics.jsonl``."""
    path = folder / _METRICS
    cut_short = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_short + json.dumps(metrics) + "\n")


def read_metrics(folder: Path) -> list[Row]:
    """Reads the lines of ``metrics.jsonl``; a line cut short by a kill is left out."""
    path = folder / _METRICS
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
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
    return _read_json(folder / DONE)


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Saves a state to resume from, in full or not at all."""
    packed = io.BytesIO()
    torch.save(state, packed)
    write_bytes(path, packed.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a state to resume from, on the CPU.

    Raises:
        ValueError: The file is broken.
    """
    try:
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
