"""Folders and parquet files of images, each of one colour, which identifies it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from PIL import Image

from training.images.own import read_own

Values = list[tuple[int, int]]


def picture(value: int, width: int = 8, height: int = 8) -> Image.Image:
    return Image.new("RGB", (width, height), (value, value + 1, value + 2))


def png(value: int, *size: int) -> bytes:
    packed = io.BytesIO()
    picture(value, *size).save(packed, "PNG")
    return packed.getvalue()


def folder(root: Path, classes: dict[str, Sequence[int]], *size: int) -> Path:
    """Writes a subfolder for each class, with an image for each value."""
    for name, values in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for value in values:
            picture(value, *size).save(root / name / f"{value:03}.png")
    return root


def parquet(path: Path, values: Sequence[int], labels: Any, **columns: Any) -> Path:
    """Writes one parquet file in the manner of the Hub; returns the folder of all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": png(value), "path": None} for value in values]
    table = {"image": cells, "label": labels} | columns
    pyarrow.parquet.write_table(pyarrow.table({key: cell for key, cell in table.items() if cell is not None}), path)
    return path.parent


def values(name: object, split: str, **options: bool) -> Values:
    """Returns what was read: the value of each image, and its label."""
    images, labels = read_own(str(name), split, **{"download": False} | options)
    assert images.dtype == torch.uint8 and images.is_contiguous() and labels.dtype == torch.int64
    assert (images == images[:, :1, :1, :1] + torch.arange(3).view(3, 1, 1)).all()
    return list(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))
