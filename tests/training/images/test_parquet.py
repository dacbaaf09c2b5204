from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.training.images.pictures import folder, parquet, picture, png, values
from training.images.own import read_own
from training.images.parquet import decode


def test_the_middle_square_is_kept_and_reduced(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(5), "b": range(5)}, 16, 32)
    striped = np.full((32, 16, 3), 255, dtype=np.uint8)
    striped[8:24] = 7
    Image.fromarray(striped).save(tmp_path / "a" / "000.png")
    images, _ = read_own(f"imagefolder:{tmp_path}@8", "train", download=False)
    assert images.shape == (9, 3, 8, 8)
    assert images[0].max() < 30  # of the stripes, only what the filter sees at the edge


def test_grey_images_and_palettes_are_read_as_colours(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(5), "b": range(5)})
    Image.new("L", (8, 8), 77).save(tmp_path / "a" / "000.png")
    picture(50).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a" / "001.png")
    images, _ = read_own(f"imagefolder:{tmp_path}", "train", download=False)
    assert images[:2, :, 0, 0].tolist() == [[77, 77, 77], [50, 51, 52]]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_images_are_turned_as_exif_says(ending: str, tmp_path: Path) -> None:
    """Orientation 6 is that of a camera held upright: the stored right side is the lower one."""
    stored = Image.fromarray(np.uint8([[0] * 16 + [255] * 16] * 16)).convert("RGB")
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(tmp_path / f"portrait.{ending}", exif=exif)
    seen = decode(tmp_path / f"portrait.{ending}", "portrait")
    assert seen.shape == (32, 16, 3) and seen[:14].max() < 30 and seen[18:].min() > 225


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(mode: str, tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), (10, 10, 10, 255), np.uint8)
    pixels[:4, :, 3] = 0
    pixels[4, :, 3] = 51  # a fifth of 10 and four fifths of 255
    if mode == "P":
        image = Image.fromarray(np.repeat([0, 2, 1], (4, 1, 3)).astype(np.uint8).reshape(8, 1).repeat(8, 1), "P")
        image.putpalette([10] * 9)
        image.save(tmp_path / "image.png", transparency=bytes([0, 255, 51]))
    else:
        Image.fromarray(pixels).convert(mode).save(tmp_path / "image.png")
    assert decode(tmp_path / "image.png", "image")[:, 0, 0].tolist() == [255] * 4 + [206] + [10] * 3


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (write(b"text"), "b/001.png cannot be read as an image: .*; remove it"),
        (write(png(1, 300, 300)[:80]), "b/001.png cannot be read as an image: .*; remove it"),
        (write(b""), "b/001.png cannot be read as an image: .*; remove it"),
        (write(b"P6 1b 8 255\n" + bytes(192)), "b/001.png cannot be read as an image: .*; remove it"),
        (
            lambda path: Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(path),
            r"b/001.png has more than 8 bits a channel \(mode I;16\); reduce it to 8",
        ),
    ],
)
def test_broken_images(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    spoil(folder(tmp_path, {"a": range(6), "b": range(6)}) / "b" / "001.png")
    with pytest.raises(ValueError, match=message):
        read_own(f"imagefolder:{tmp_path}@8", "train", download=False)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": None, "species": [5, 5, 6]}, [0, 0, 1]),
        ({"label": None, "fine_label": [3, 4, 3], "coarse_label": [1, 1, 0]}, [0, 1, 0]),
        ({"id": [9, 8, 7]}, [1, 0, 1]),
        ({"image": [png(i) for i in range(3)]}, [1, 0, 1]),
        ({"image": pyarrow.array([png(i) for i in range(3)], pyarrow.large_binary())}, [1, 0, 1]),
    ],
    ids=["another name", "two levels", "more columns", "bytes", "large bytes"],
)
def test_columns(columns: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(3), [1, 0, 1], **columns)
    parquet(tmp_path / "test.parquet", range(3), [1, 0, 1], **columns)
    assert values(f"parquet:{tmp_path}", "train") == list(zip(range(3), expected, strict=True))


CELLS = [{"bytes": png(i), "path": None} for i in range(3)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": None}, r"must have one column of images and one of labels, .*; its columns are image \(struct"),
        ({"image": None}, "its columns are label"),
        ({"picture": CELLS}, "its columns are image .*, label .*, picture"),
        ({"label": None, "a": [1, 2, 2], "b": ["x", "y", "y"]}, r"its columns are .*, a \(int64\), b \(string\)"),
        ({"label": [0.0, 1.0, 1.0], "id": [1, 2, 2]}, r"numbers or texts; .*label \(double\), id"),
        ({"label": [[0], [1], [1]]}, r"numbers or texts; .*label \(list"),
        ({"label": [True, False, True]}, r"numbers or texts; .*label \(bool\)"),
        ({"label": [0, None, 1]}, "train.parquet has no label in row 1; drop that row"),
        ({"image": [CELLS[0], CELLS[1], None]}, "train.parquet has no image in row 2; drop that row"),
        ({"image": [{"bytes": None, "path": "a.png"}, *CELLS[1:]]}, "train.parquet has no image in row 0"),
        ({"image": [*CELLS[:2], {"bytes": b"no", "path": None}]}, "train.parquet, row 2 cannot be read as an image"),
        ({"label": ["a.png", "b.png", "c.png"]}, "has 3 images of 3 classes to train on"),
    ],
)
def test_unsuitable_columns(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(3), [0, 1, 1], **columns)
    parquet(tmp_path / "test.parquet", range(3), [0, 1, 1])
    with pytest.raises(ValueError, match=message):
        read_own(f"parquet:{tmp_path}", "train", download=False)


@pytest.mark.parametrize("length", [0, 20, 500])
def test_a_broken_parquet_file(length: int, tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(20), [0, 1] * 10)
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"train\.parquet is not a complete parquet file .*; get it again"):
        read_own(f"parquet:{tmp_path}", "train", download=False)
