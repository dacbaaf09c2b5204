"""Pictures of kernels: contact sheets, and a PNG writer that needs only the standard library."""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from dwp_init.options import check_instance, check_one_of
from dwp_init.storage import tensor_bytes, write_bytes

ACROSS = 8  # kernels in a row where there is little room
_PIXEL = 4  # side of a pixel of a digit
_DIGITS = (  # 5 rows of 3 pixels
    "####.##.##.####",
    ".#.##..#..#.###",
    "###..#####..###",
    "###..####..####",
    "#.##.####..#..#",
    "####..###..####",
    "####..####.####",
    "###..#..#..#..#",
    "####.#####.####",
    "####.####..####",
)

Colors = Literal["diverging", "grey", "rgb"]


def kernel_sheet(
    kernels: Tensor,
    columns: int | None = None,
    zoom: int = 8,
    *,
    colors: Colors = "diverging",
    common_scale: bool = False,
) -> Tensor:
    """Arranges kernels in rows from left to right, separated by lines of one pixel.

    Each channel of a kernel is a tile of its own, next to the kernel's other channels, unless the colors are
    ``"rgb"``. A one-dimensional kernel is a row of pixels, and the slices of a three-dimensional one are side by side.
    Cells without a kernel have the color of the lines.

    Args:
        kernels: Kernels of shape ``(n, c, *size)``.
        columns: Number of kernels in a row; by default about the number of rows.
        zoom: Side of the square of pixels that shows one weight.
        colors: ``"diverging"`` from blue over white at 0 to red, ``"grey"`` from black over mid-grey at 0 to white, or
            ``"rgb"``, in which 3 channels are red, green and blue of one tile, mid-grey at 0.
        common_scale: Whether all kernels are scaled by the largest absolute value among them; by default each kernel is
            scaled by its own.

    Returns:
        Pixels of shape ``(height, width, 3)``, uint8.

    Raises:
        TypeError: ``kernels`` is not a tensor.
        ValueError: There are no kernels, they have a wrong shape, NaN or infinite values, or an option is wrong, such
            as ``"rgb"`` for kernels that have not 3 channels.
    """
    _check_kernels(kernels)
    columns = math.ceil(math.sqrt(len(kernels))) if columns is None else columns
    for name, value in {"columns": columns, "zoom": zoom}.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more; got {value!r}")
    check_one_of("colors", colors, get_args(Colors))
    if colors == "rgb" and (kernels.shape[1] != 3 or kernels.dim() > 4):
        raise ValueError(f"colors='rgb' is for kernels (3, k, k); these are {tuple(kernels.shape[1:])}: choose others")
    tiles = _paint(planes_of(_scaled(kernels, common_scale)), colors)
    tiles = tiles.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    line = 128 if colors == "diverging" else 255
    return _tile(tiles, min(columns, len(kernels)) * (len(tiles) // len(kernels)), line)


def planes_of(kernels: Tensor) -> Tensor:
    """Maps kernels ``(n, c, *size)`` to ``(n, planes, height, width)``: a row, a plane or slices for each channel."""
    return kernels.unsqueeze(2) if kernels.dim() == 3 else kernels.flatten(1, -3)


def colors_of(kernels: Tensor) -> Colors:
    """Returns ``"rgb"`` for kernels ``(n, 3, k, k)`` of colour images, and ``"diverging"`` for others."""
    return "rgb" if kernels.dim() == 4 and kernels.shape[1] == 3 else "diverging"


def numbered_sheets(sheets: Sequence[Tensor]) -> Tensor:
    """Arranges pictures in rows from left to right on white, with the number of each above it, from 1.

    Args:
        sheets: Pixels of shape ``(height, width, 3)``, uint8.

    Returns:
        Pixels of shape ``(height, width, 3)``, uint8.
    """
    blocks = [_framed(sheet, number) for number, sheet in enumerate(sheets, 1)]
    columns = math.ceil(math.sqrt(len(blocks)))
    width = max(block.shape[1] for block in blocks)
    rows: list[Tensor] = []
    for start in range(0, len(blocks), columns):
        row = blocks[start : start + columns]
        height = max(block.shape[0] for block in row)
        cells = [_on_white(block, height, width) for block in row]
        cells += [_on_white(cells[0][:0], height, width)] * (min(columns, len(blocks)) - len(row))
        rows.append(torch.cat(cells, 1))
    return torch.cat(rows)


def write_png(path: str | Path, pixels: Tensor) -> Path:
    """Writes pixels as a PNG file; if it fails, an existing file does not change.

    Args:
        path: Path of the file, ending in ``.png``.
        pixels: Pixels of shape ``(height, width, 3)``, uint8.

    Returns:
        The path.

    Raises:
        ValueError: The path does not end in ``.png``, or ``pixels`` has a wrong shape or dtype.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"the picture is a PNG, so its name must end in .png; got {path.name!r}")
    write_bytes(path, png_bytes(pixels))
    return path


def png_bytes(pixels: Tensor) -> bytes:
    """Returns pixels as the content of a PNG file.

    Args:
        pixels: Pixels of shape ``(height, width, 3)``, uint8.

    Raises:
        ValueError: ``pixels`` has a wrong shape or dtype.
    """
    if pixels.dtype != torch.uint8 or pixels.dim() != 3 or pixels.shape[2] != 3 or not pixels.numel():
        raise ValueError(f"pixels must be uint8 (height, width, 3); got {pixels.dtype} {tuple(pixels.shape)}")
    height, width, _ = pixels.shape
    lines = torch.cat([pixels.new_zeros(height, 1), pixels.flatten(1)], 1)  # each line begins with its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits per channel, RGB, not interlaced
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(tensor_bytes(lines), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _check_kernels(kernels: Tensor) -> None:
    check_instance("kernels", kernels, Tensor, "tensor")
    if not 3 <= kernels.dim() <= 5 or not kernels.numel():
        shape = tuple(kernels.shape)
        raise ValueError(f"kernels must have shape (n, c, *size), with 1 to 3 sizes, none of them 0; got {shape}")
    wrong = (~kernels.isfinite()).sum().item()
    if wrong:
        raise ValueError(f"kernels have {wrong} NaN or infinite values of {kernels.numel()}; all must be finite")


def _scaled(kernels: Tensor, common: bool) -> Tensor:
    """Scales each kernel, or all kernels by a common factor, such that the largest absolute value is 1."""
    kernels = kernels.detach().cpu().double()
    largest = kernels.abs().max() if common else kernels.abs().amax(tuple(range(1, kernels.dim())), keepdim=True)
    return kernels / torch.where(largest > 0, largest, 1.0)


def _paint(values: Tensor, colors: Colors) -> Tensor:
    """Maps kernels ``(n, c, h, w)`` with values in [-1, 1] to uint8 tiles ``(n · c, h, w, 3)``, or ``(n, h, w, 3)``."""
    if colors == "rgb":
        return (255 * (values.movedim(1, -1) + 1) / 2).round().to(torch.uint8)
    values = values.flatten(0, 1)
    if colors == "grey":
        rgb = ((values + 1) / 2).unsqueeze(-1).expand(*values.shape, 3)
    else:
        rgb = torch.stack([1 + values, 1 - values.abs(), 1 - values], -1).clamp(max=1)
    return (255 * rgb).round().to(torch.uint8)


def _tile(tiles: Tensor, columns: int, line: int) -> Tensor:
    """Arranges tiles ``(n, height, width, 3)`` in rows of ``columns``, with lines between and around them."""
    n, height, width, _ = tiles.shape
    rows = math.ceil(n / columns)
    cells = tiles.new_full((rows * columns, height + 1, width + 1, 3), line)
    cells[:n, 1:, 1:] = tiles
    cells = cells.view(rows, columns, height + 1, width + 1, 3).transpose(1, 2)
    sheet = tiles.new_full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), line)
    sheet[:-1, :-1] = cells.reshape(rows * (height + 1), columns * (width + 1), 3)
    return sheet


def _framed(sheet: Tensor, number: int) -> Tensor:
    """Puts a picture on white, with a margin and its number above it."""
    digits = [_digit(int(mark)) for mark in str(number)]
    label = torch.cat([part for digit in digits for part in (digit, torch.zeros(5, 1, dtype=torch.bool))], 1)
    label = label.repeat_interleave(_PIXEL, 0).repeat_interleave(_PIXEL, 1)
    (height, width, _), (high, wide) = sheet.shape, label.shape
    top, left = high + 3 * _PIXEL, 2 * _PIXEL
    framed = _on_white(sheet[:0], top + height + 2 * _PIXEL, max(width, wide) + 2 * left)
    framed[2 * _PIXEL : 2 * _PIXEL + high, left : left + wide][label] = 0
    framed[top : top + height, left : left + width] = sheet
    return framed


def _digit(digit: int) -> Tensor:
    """Returns the pixels ``(5, 3)`` of a digit, True where it is black."""
    return torch.tensor([mark == "#" for mark in _DIGITS[digit]]).view(5, 3)


def _on_white(pixels: Tensor, height: int, width: int) -> Tensor:
    """Puts pixels into the upper left corner of a white picture."""
    picture = pixels.new_full((height, width, 3), 255)
    picture[: pixels.shape[0], : pixels.shape[1]] = pixels
    return picture


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
