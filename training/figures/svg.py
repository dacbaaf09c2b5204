"""Figures as SVG for web pages: text stays text, and ink takes the colour of the page's, light or dark."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ACCENT, FAINTER = "#4c6fd1", "#8a8f98"  # read on white and on dark
_INK = "#0b0c0d"  # of no other thing: it becomes currentColor
_DIGITS = re.compile(r"(\d\.\d)\d+")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **{f"{name}color": _INK for name in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.")},
}


@contextmanager
def web_ink() -> Iterator[str]:
    """Within it figures are made for web pages; gives the colour that becomes the page's own."""
    with matplotlib.rc_context(_SETTINGS):
        yield _INK


def bare(axes: Axes) -> None:
    """Leaves the axis below and a faint grid."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(color="#888888", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def svg_of(figure: Figure, label: str) -> str:
    """Returns a figure as an ``<svg>`` element that is as wide as there is room, up to its own width.

    Args:
        figure: Made within :func:`web_ink`.
        label: What a reader who does not see it is told.
    """
    content = io.StringIO()
    figure.tight_layout()
    with matplotlib.rc_context(_SETTINGS), matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>|font-family: [^;\"]+;? ?", "", text, flags=re.DOTALL)  # the page's font
    width, height = (float(found) for found in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    head = f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:g} {height:g}" '
    head += f'width="{4 / 3 * width:.0f}" height="{4 / 3 * height:.0f}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return _shortened(re.sub(r"<svg[^>]*>", head, text, count=1))


def svg_file(svg: str) -> bytes:
    """Returns what :func:`svg_of` made as a file of its own, in an ink that is read on white and on dark."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" style="color:{FAINTER};font-family:sans-serif" '
    return svg.replace("<svg ", head, 1).encode()


def svg_size(svg: str) -> tuple[int, int]:
    """Returns the width and the height, in pixels, of what :func:`svg_of` made."""
    width, height = re.findall(r' (?:width|height)="(\d+)"', svg)[:2]
    return int(width), int(height)


def _shortened(svg: str) -> str:
    """Leaves out what nobody sees: digits after the first of a position, names that nothing refers to, and spaces."""
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: _DIGITS.sub(r"\1", found[0]), svg)
    named = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", svg).replace("<g/>", "")
    return re.sub(r">\s+<", "><", re.sub(r"\s+", " ", svg))
