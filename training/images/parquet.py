"""Labelled images in parquet files, in the layout of the Hugging Face Hub, and how encoded images are decoded."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Label = int | str
Encoded = Path | bytes  # of an image: its file, or the file's content

_LABELS = ("label", "labels", "fine_label")


def read_parquet(path: Path) -> list[tuple[bytes, Label, str]]:
    """Reads each row's encoded image, its label and what to call it in errors.

    The image column holds the files' bytes, or a structure with an entry ``bytes``. The label column is called
    ``label``, ``labels`` or ``fine_label``, or is the only one of integers or texts.

    Raises:
        ValueError: The file is broken, or does not have these columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        types = {field.name: field.type for field in schema}
        images = [name for name, kind in types.items() if _is_image(kind)]
        plain = [name for name, kind in types.items() if _is_label(kind)]
        labels = [name for name in _LABELS if name in types][:1] or plain
        if len(images) != 1 or len(labels) != 1 or labels[0] not in plain:
            raise ValueError(
                f"{path} must have one column of images and one of labels, numbers or texts; its columns are "
                f"{', '.join(f'{name} ({kind})' for name, kind in types.items())}"
            )
        table = pyarrow.parquet.read_table(path, columns=[images[0], labels[0]])
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a complete parquet file ({error}); get it again") from error
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table[images[0]].to_pylist()]
    found = table[labels[0]].to_pylist()
    for kind, values in (("image", cells), ("label", found)):
        if None in values:
            raise ValueError(f"{path} has no {kind} in row {values.index(None)}; drop that row")
    return [(cell, label, f"{path}, row {row}") for row, (cell, label) in enumerate(zip(cells, found, strict=True))]


def check_complete(place: object, part: str, paths: Sequence[Path]) -> None:
    """Raises ``FileNotFoundError`` if the files of a part are called ``…-of-00003`` and are not three."""
    count = paths[0].stem.rpartition("-of-")[2]
    if count.isdecimal() and int(count) != len(paths):
        raise FileNotFoundError(f"{place} has {len(paths)} of {int(count)} files for {part}; get the others too")


def decode(source: Encoded, called: str, size: int | None = None) -> NDArray[np.uint8]:
    """Decodes an image as RGB, ``(h, w, 3)``, upright and on white.

    torchvision's ``ImageFolder`` turns no image and shows the colours that transparent pixels happen to have. Here the
    orientation that EXIF states is applied, as viewers do, and transparent pixels let a white ground shine through.

    Args:
        source: The encoded image.
        called: What to call it in errors.
        size: If given, the middle square of the image is resized to this.

    Raises:
        ValueError: It cannot be read, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            deep = file.mode if file.mode.startswith(("I", "F")) else ""
            image = file if deep else _on_white(ImageOps.exif_transpose(file))
    except Exception as error:  # the reader meets arbitrary bytes, and raises what they lead to
        raise ValueError(f"{called} cannot be read as an image: {error}; remove it") from error
    if deep:
        raise ValueError(f"{called} has more than 8 bits a channel (mode {deep}); reduce it to 8")
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))


def _on_white(image: Any) -> Any:
    """Returns an image of PIL as RGB."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    inside = {field.name for field in kind} if types.is_struct(kind) else set()
    return bool(types.is_binary(kind) or types.is_large_binary(kind)) or "bytes" in inside


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
