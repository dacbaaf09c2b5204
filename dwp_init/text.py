"""Text for a terminal: values from a downloaded prior are shown so that they cannot control the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, cast

_LONGEST = 600  # characters of a value in an error
_RULE = "1px solid rgba(128, 128, 128, 0.4)"  # the line below a row of an HTML table


class NameTable(list[str]):
    """A list of names that prints as a table, in terminals and notebooks; otherwise it is a list like any other.

    Args:
        names: The names.
        head: Titles of the columns, that of the names first.
        rows: The other columns of each name.
    """

    def __init__(
        self, names: Iterable[str] = (), head: Sequence[str] = (), rows: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(names)
        self._head, self._rows = tuple(head), dict(rows or {})

    def __repr__(self) -> str:
        return aligned(self._table()) if self._table() else super().__repr__()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Returns the table as HTML, for notebooks."""
        return html_table(self._table()) if self._table() else escape(printable(super().__repr__()))

    def _table(self) -> list[tuple[str, ...]]:
        """Returns the rows of the table, its head first; empty if there is none, or a name has none."""
        if not self or any(name not in self._rows for name in self):
            return []
        return [self._head, *((name, *self._rows[name]) for name in self)]


def printable(text: str) -> str:
    """Escapes characters that could control a terminal; line breaks stay."""
    return "".join(mark if mark.isprintable() or mark == "\n" else ascii(mark)[1:-1] for mark in text)


def shown_value(value: object) -> str:
    """Formats a value in one line, escaped if it has characters that are not printable."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else ascii(text)


def brief(value: object, quoted: bool = True) -> str:
    """Formats a value from anywhere for an error: as Python writes it, cut in the middle if it is long.

    Args:
        value: The value.
        quoted: Whether a string has its quotation marks.
    """
    text = repr(value) if quoted else str(value)
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} … {text[-half:]} ({len(text):,} characters)"


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


def html_table(rows: Sequence[tuple[str, ...]]) -> str:
    """Formats rows as an HTML table, the first as its head; everything is escaped.

    It has no colour of its own, so that it is read on a light and on a dark page, and scrolls on a narrow one, by
    keyboard too.
    """
    cell = f"text-align: left; vertical-align: top; padding: 0.15em 1.2em 0.15em 0; border: 0; border-bottom: {_RULE}"
    head, *body = ([escape(printable(text)) for text in row] for row in rows)
    lines = ["".join(f'<th scope="col" style="{cell}">{text}</th>' for text in head)]
    lines += ["".join(f'<td style="{cell}">{text}</td>' for text in row) for row in body]
    table = "border-collapse: collapse; font-variant-numeric: tabular-nums"
    rest = "\n".join([*(f"<tr>{line}</tr>" for line in lines), "</table></div>"])
    return f'<div tabindex="0" style="margin-bottom: 1em; overflow-x: auto"><table style="{table}">\n{rest}'
