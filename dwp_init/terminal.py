"""Pictures in a terminal: two pixels a character, as half blocks in 24-bit colour."""

import errno
import io
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

import torch
from torch import Tensor

from dwp_init.picture import ACROSS, Colors, colors_of, kernel_sheet, planes_of
from dwp_init.priors import Prior
from dwp_init.tensors import as_list

_SIDE = 8  # pixels of the side of a kernel, at most unless it has more weights
_UPPER, _RESET = "▀", "\x1b[0m"


def shows_pictures(stream: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is a terminal of 24-bit colour, and no variable such as ``NO_COLOR`` asks for plain text.

    Args:
        stream: ``sys.stdout`` by default.
        environment: Variables of the process.
    """
    output: TextIO = stream or sys.stdout
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    deep = environment.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environment
    try:
        _UPPER.encode(getattr(output, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return deep and not plain and output.isatty()


def reader_stopped(error: Exception, output: TextIO, platform: str = sys.platform) -> bool:
    """Whether an error says that nobody reads an output any more, as in ``dwp-init list | head -1``.

    On Windows the error is one that others may be too, so the output must refuse what is left to write.
    """
    if platform == "win32" and isinstance(error, OSError) and error.errno == errno.EINVAL:
        try:
            output.flush()
        except OSError:
            return True
    return isinstance(error, BrokenPipeError)


def escape_what_cannot_be_encoded() -> None:
    """Makes ``sys.stdout`` write marks that its encoding lacks as escapes, as ``sys.stderr`` does, and not fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def heading(line: str) -> str:
    """Makes a line bold if the output is a terminal of 24-bit colour."""
    return f"\x1b[1m{line}{_RESET}" if shows_pictures() else line


def half_blocks(pixels: Tensor) -> str:
    """Formats pixels as half blocks: the upper pixel is the block's colour, the lower one its background.

    Args:
        pixels: ``(height, width, 3)``, uint8.

    Returns:
        Lines of ``width`` characters, each for two rows of pixels; under the last row of an odd height nothing is
        coloured.
    """
    rows: list[list[list[int]]] = as_list(pixels)
    lines: list[str] = []
    for top in range(0, len(rows), 2):
        lower = rows[top + 1] if top + 1 < len(rows) else [None] * len(rows[top])
        cells: list[str] = []
        last: object = None
        for pair in zip(rows[top], lower, strict=True):
            cells.append(_UPPER if pair == last else f"{_colour(38, pair[0])}{_colour(48, pair[1])}{_UPPER}")
            last = pair
        lines.append("".join(cells) + _RESET)
    return "\n".join(lines)


def kernel_blocks(kernels: Tensor, colors: Colors | None = None) -> str:
    """Formats kernels as half blocks, as many in a row as fit, at most eight; empty if not even one fits.

    Args:
        kernels: Kernels of shape ``(n, c, *size)``.
        colors: As for :func:`~dwp_init.picture.kernel_sheet`; by default those of their number of channels.
    """
    colors = colors or colors_of(kernels)
    zoom, columns = _room(kernels, colors)
    return half_blocks(kernel_sheet(kernels, columns, zoom, colors=colors)) if columns else ""


def prior_blocks(prior: Prior, rows: int) -> str:
    """Draws kernels from a prior, of seed 0, and formats them as half blocks; empty where pictures are not shown.

    Args:
        prior: The prior; one by depth has a row of kernels for each of its depths, that of the first layers above.
        rows: Number of rows of another prior.
    """
    kernels = torch.empty(1, *prior.kernel_shape)
    _, columns = _room(kernels, colors_of(kernels))
    if not shows_pictures() or not columns:
        return ""
    generator = torch.Generator().manual_seed(0)
    if prior.depths:
        return kernel_blocks(torch.cat([prior.at(depth).sample(columns, generator) for depth in prior.depths]))
    return kernel_blocks(prior.sample_layer(columns * rows, generator))


def _room(kernels: Tensor, colors: Colors) -> tuple[int, int]:
    """The side of the square of pixels that shows a weight, and how many kernels fit into a line of the terminal."""
    planes, height, width = planes_of(kernels)[0].shape
    zoom = max(_SIDE // max(height, width), 1)
    wide = (1 if colors == "rgb" else planes) * (zoom * width + 1)
    return zoom, min((shutil.get_terminal_size().columns - 1) // wide, ACROSS)


def _colour(kind: int, rgb: list[int] | None) -> str:
    """The sequence that sets the foreground, 38, or the background, 48; of None, to the terminal's own."""
    return f"\x1b[{kind + 1}m" if rgb is None else f"\x1b[{kind};2;{';'.join(map(str, rgb))}m"
