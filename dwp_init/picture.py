"""Pictures of kernels: contact sheets, and a PNG writer that needs only the standard library."""

import math
import struct
import zlib
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from dwp_init.options import check_instance, check_one_of
from dwp_init.storage import tensor_bytes, write_bytes

Colors = Literal["diverging", "grey"]


def kernel_sheet(
    kernels: Tensor,
    columns: int | None = None,
    zoom: int = 8,
    *,
    colors: Colors = "diverging",
    common_scale: bool = False,
) -> Tensor:
    """Arranges kernels in rows from left to right, separated by lines of one pixel.

    Each channel of a kernel is a tile of its own, next to the kernel's other channels. A one-dimensional kernel is a
    row of pixels, and the slices of a three-dimensional one are side by side. Cells without a kernel have the color of
    the lines.

    Args:
        kernels: Kernels of shape ``(n, c, *size)``.
        columns: Number of kernels in a row; by default about the number of rows.
        zoom: Side of the square of pixels that shows one weight.
        colors: ``"diverging"`` from blue over white at 0 to red, or ``"grey"`` from black over mid-grey at 0 to white.
        common_scale: Whether all kernels are scaled by the largest absolute value among them; by default each kernel is
            scaled by its own.

    Returns:
        Pixels of shape ``(height, width, 3)``, uint8.

    Raises:
        TypeError: ``kernels`` is not a tensor.
        ValueError: There are no kernels, they have a wrong shape, NaN or infinite values, or an option is wrong.
    """
    _check_kernels(kernels)
    columns = math.ceil(math.sqrt(len(kernels))) if columns is None else columns
    for name, value in {"columns": columns, "zoom": zoom}.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more; got {value!r}")
    check_one_of("colors", colors, get_args(Colors))
    planes = planes_of(_scaled(kernels, common_scale))
    tiles = _paint(planes, colors).flatten(0, 1)
    tiles = tiles.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    line = 128 if colors == "diverging" else 255
    return _tile(tiles, min(columns, len(kernels)) * planes.shape[1], line)


def planes_of(kernels: Tensor) -> Tensor:
    """Maps kernels ``(n, c, *size)`` to ``(n, planes, height, width)``: a row, a plane or slices for each channel."""
    return kernels.unsqueeze(2) if kernels.dim() == 3 else kernels.flatten(1, -3)


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
    if pixels.dtype != torch.uint8 or pixels.dim() != 3 or pixels.shape[2] != 3 or not pixels.numel():
        raise ValueError(f"pixels must be uint8 (height, width, 3); got {pixels.dtype} {tuple(pixels.shape)}")
    height, width, _ = pixels.shape
    lines = torch.cat([pixels.new_zeros(height, 1), pixels.flatten(1)], 1)  # each line begins with its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits per channel, RGB, not interlaced
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(tensor_bytes(lines), 9)) + _chunk(b"IEND", b"")
    write_bytes(path, b"\x89PNG\r\n\x1a\n" + chunks)
    return path


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
    """Maps values in [-1, 1] of any shape to uint8 colors, in a new last dimension of size 3."""
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


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
