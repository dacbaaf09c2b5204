"""Text for a terminal: values from a downloaded prior are shown so that they cannot control the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, cast


def printable(text: str) -> str:
    """Escapes characters that could control a terminal; line breaks stay."""
    return "".join(mark if mark.isprintable() or mark == "\n" else ascii(mark)[1:-1] for mark in text)


def shown_value(value: object) -> str:
    """Formats a value in one line, escaped if it has characters that are not printable."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else ascii(text)


def few(names: Sequence[str], most: int = 3) -> str:
    """Joins names with commas; of more than ``most + 1`` only the first, and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])}, … {more} more"


def outline(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Formats nested values, one line for each."""
    lines: list[str] = []
    for key, value in values.items():
        start = f"{indent}{shown_value(key)}:"
        if isinstance(value, dict):
            lines += [start, *outline(cast(dict[str, Any], value), indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{start} {', '.join(map(shown_value, cast(list[object], value)))}")
        else:
            lines.append(f"{start} {shown_value(value)}")
    return lines


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Formats the rows of a table with aligned columns, each cell in one line."""
    cells = [tuple(map(shown_value, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
