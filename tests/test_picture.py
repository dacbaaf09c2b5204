"""Contact sheets of kernels, and the PNG writer."""

import struct
import zlib
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from dwp_init.picture import kernel_sheet, numbered_sheets, write_png


def read_png(path: Path) -> Tensor:
    """Decodes an unfiltered 8-bit RGB file, checking every chunk's checksum."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = torch.tensor(list(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).view(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def test_png_holds_the_pixels(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    path = write_png(tmp_path / "a.PNG", pixels)
    assert torch.equal(read_png(path), pixels)
    write_png(str(path), pixels.flip(0).transpose(0, 1))  # replaces it, and strides do not matter
    assert torch.equal(read_png(path), pixels.flip(0).transpose(0, 1))
    assert [file.name for file in tmp_path.iterdir()] == ["a.PNG"]


def test_png_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / "a.png", torch.zeros(2, 2, 3, dtype=torch.uint8))
    old = path.read_bytes()

    def full(*arguments: object) -> NoReturn:
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(OSError, match="no space left"):
        write_png(path, torch.ones(2, 2, 3, dtype=torch.uint8))
    monkeypatch.undo()
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_colors_of_known_values() -> None:
    kernels = torch.tensor([[[[-2.0, -1.0], [0.0, 2.0]]]])
    diverging, grey = kernel_sheet(kernels, zoom=1), kernel_sheet(kernels, zoom=1, colors="grey")
    blue, light, white, red, line = [0, 0, 255], [128, 128, 255], [255] * 3, [255, 0, 0], [128] * 3
    assert diverging.tolist() == [[line] * 4, [line, blue, light, line], [line, white, red, line], [line] * 4]
    assert grey[1:3, 1:3, 0].tolist() == [[0, 64], [128, 255]]
    assert torch.equal(grey, grey[..., :1].expand(-1, -1, 3)) and (grey[0] == 255).all()


@pytest.mark.parametrize(("common", "second"), [(False, [255, 0, 0]), (True, [255, 204, 204])])
def test_scale_is_each_kernels_own_or_common(common: bool, second: list[int]) -> None:
    sheet = kernel_sheet(torch.tensor([5.0, 1.0]).view(2, 1, 1, 1), zoom=1, common_scale=common)
    assert sheet.shape == (3, 5, 3)
    assert sheet[1, 1].tolist() == [255, 0, 0] and sheet[1, 3].tolist() == second


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_zero_kernels_are_white_in_any_dtype(dtype: torch.dtype) -> None:
    sheet = kernel_sheet(torch.zeros(1, 1, 3, 3, dtype=dtype), zoom=2)
    assert (sheet[1:-1, 1:-1] == 255).all()


def test_places_of_kernels_and_channels() -> None:
    kernels = torch.zeros(3, 2, 1, 1)
    kernels[2, 1] = -1.0
    sheet = kernel_sheet(kernels, columns=2, zoom=3)
    assert sheet.shape == (2 * 4 + 1, 4 * 4 + 1, 3)  # two rows of two kernels of two channels
    blue = (sheet == torch.tensor([0, 0, 255], dtype=torch.uint8)).all(-1).nonzero()
    assert blue.min(0).values.tolist() == [5, 5] and blue.max(0).values.tolist() == [7, 7] and len(blue) == 9
    assert (sheet[5:, 9:] == 128).all()  # the cells without a kernel


def test_rows_and_slices_are_shown_side_by_side() -> None:
    kernels = torch.randn(4, 2, 3, 5)
    sheet = kernel_sheet(kernels.flatten(1, 2), columns=2, zoom=2, common_scale=True)  # 6 channels of length 5
    assert torch.equal(sheet, kernel_sheet(kernels.view(4, 6, 1, 5), columns=2, zoom=2, common_scale=True))
    volumes = torch.randn(4, 2, 3, 5, 4)
    assert torch.equal(kernel_sheet(volumes), kernel_sheet(volumes.flatten(1, 2)))


@pytest.mark.parametrize(("n", "columns", "shape"), [(1, None, (3, 3)), (5, None, (5, 7)), (2, 9, (3, 5))])
def test_columns(n: int, columns: int | None, shape: tuple[int, int]) -> None:
    assert kernel_sheet(torch.ones(n, 1, 1, 1), columns, zoom=1).shape == (*shape, 3)


@pytest.mark.parametrize(
    ("kernels", "options", "error", "message"),
    [
        ([1.0], {}, TypeError, "kernels must be a tensor; got list"),
        (torch.zeros(7, 7), {}, ValueError, r"shape \(n, c, \*size\), with 1 to 3 sizes, none of them 0; got \(7, 7\)"),
        (torch.zeros(0, 1, 7, 7), {}, ValueError, r"none of them 0; got \(0, 1, 7, 7\)"),
        (torch.full((1, 1, 1, 2), torch.nan), {}, ValueError, "2 NaN or infinite values of 2"),
        (torch.ones(1, 1, 1, 1), {"columns": 0}, ValueError, "columns must be a whole number, 1 or more; got 0"),
        (torch.ones(1, 1, 1, 1), {"zoom": 1.5}, ValueError, "zoom must be a whole number, 1 or more; got 1.5"),
        (torch.ones(1, 1, 1, 1), {"colors": "red"}, ValueError, "'diverging', 'grey', 'rgb'; got 'red'"),
    ],
)
def test_sheet_errors(kernels: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kernel_sheet(kernels, **options)


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("a.jpg", torch.zeros(2, 2, 3, dtype=torch.uint8), "must end in .png; got 'a.jpg'"),
        ("a.png", torch.zeros(2, 2, 3), "uint8 .* got torch.float32"),
        ("a.png", torch.zeros(2, 2, dtype=torch.uint8), r"got torch.uint8 \(2, 2\)"),
        ("a.png", torch.zeros(0, 2, 3, dtype=torch.uint8), r"got torch.uint8 \(0, 2, 3\)"),
    ],
)
def test_png_errors(tmp_path: Path, name: str, pixels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_png(tmp_path / name, pixels)
    assert not list(tmp_path.iterdir())


def test_three_channels_are_one_tile_in_colour_grey_at_0() -> None:
    kernels = torch.tensor([1.0, -1.0, 0.0, 0.5, 0.5, 0.5]).view(2, 3, 1, 1)
    line, sheet = [255] * 3, kernel_sheet(kernels, zoom=1, colors="rgb")
    assert sheet.shape == (3, 5, 3)
    assert sheet[1].tolist() == [line, [255, 0, 128], line, [255] * 3, line]  # each by its own largest
    with pytest.raises(ValueError, match=r"colors='rgb' is for kernels \(3, k, k\); these are \(1, 3, 3\): choose"):
        kernel_sheet(torch.ones(1, 1, 3, 3), colors="rgb")


def test_sheets_are_numbered_and_stand_apart() -> None:
    sheets = [torch.full((20, width, 3), 7, dtype=torch.uint8) for width in (30, 20, 10, 5, 1)]
    picture = numbered_sheets(sheets)
    assert picture.shape == (2 * 60, 3 * 46, 3)  # three in a row
    assert (picture == 7).all(2).sum() == 20 * 66
    one, four = picture[8:28:4, 8:20:4, 0], picture[68:88:4, 8:20:4, 0]
    assert (one == 0).int().tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 1, 1]]
    assert (four == 0).int().tolist() == [[1, 0, 1], [1, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1]]
