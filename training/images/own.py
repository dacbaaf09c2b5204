"""Images of a user's own: a folder with a subfolder per class, or parquet files as the Hugging Face Hub keeps them."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("imagefolder", "parquet")
HELD_OUT = ("test", "validation", "valid", "val")  # what the images to test on may be called
EVERY = 10  # without such a part, every tenth image of what there is
_LABELS = ("label", "labels", "fine_label")
_PART = re.compile(r"(?:.*/)?(train|test|validation|valid|val)(?![a-z])[^/]*\.parquet")


def is_own(name: str) -> bool:
    """Whether a data set's name says where a user's own images are: ``imagefolder:PATH`` or ``parquet:PATH``."""
    return name.partition(":")[0] in KINDS and ":" in name


def short_name(name: str) -> str:
    """Returns what to call a user's own data set: the last part of its path."""
    return os.path.basename(os.path.abspath(_parse(name)[1]))


def read_own(name: str, split: str, download: bool) -> tuple[Tensor, Tensor]:
    """Reads one split of a user's own images, ``(n, 3, h, w)`` uint8, and their labels ``(n,)``.

    Args:
        name: ``imagefolder:PATH`` or ``parquet:PATH``, and ``parquet:user/name`` for a data set on the Hub; with
            ``@64`` behind it for images that are to be reduced to 64×64, their middle square if they are no square.
        split: ``train`` or ``test``. Where there is no part for the test, nor one for validation, it is every tenth
            image.
        download: Whether a data set may be fetched from the Hub; what is cached is read without.

    Raises:
        FileNotFoundError: There is no such folder, or nothing in it.
        ValueError: An image cannot be read, images differ in size, or labels cannot be told or tell nothing.
    """
    kind, place, size = _parse(name)
    if kind == "imagefolder":
        samples, whole = _folder_samples(Path(place), split)
    else:
        samples, whole = _parquet_samples(_parquet_files(place, download), split, place)
    if whole:
        samples = [sample for i, sample in enumerate(samples) if (i % EVERY == EVERY - 1) == (split == "test")]
    if not samples:
        raise FileNotFoundError(f"{name} has no images for the {split} split; it needs {EVERY} or more in all")
    classes = len({label for _, label, _ in samples})
    if split == "train" and not 1 < classes < len(samples):
        raise ValueError(
            f"{name} has {len(samples)} images of {classes} classes to train on; give two classes or more, and several "
            "images of a class"
        )
    images = torch.from_numpy(np.stack(list(_same_size(name, size, samples)))).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label, _ in samples])


def _parse(name: str) -> tuple[str, str, int | None]:
    kind, _, place = name.partition(":")
    head, at, size = place.rpartition("@")
    sized = bool(at) and size.isdecimal()
    if sized and not 8 <= int(size) <= 512:
        raise ValueError(f"{name!r} asks for images of {size}×{size}; expected a size from 8 to 512")
    place = head if sized else place
    if not place:
        raise ValueError(f"{name!r} does not say where the images are; write {kind}:PATH")
    return kind, place, int(size) if sized else None


Sample = tuple[Any, int, str]  # a path or the file's content, its label, and what it is called in errors


def _folder_samples(folder: Path, split: str) -> tuple[list[Sample], bool]:
    """Returns the images of a folder, and whether they are those of both splits."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} with a subfolder of images for each class")
    parts = {part.name: part for part in folder.iterdir() if part.is_dir() and any(map(Path.is_dir, part.iterdir()))}
    train, held_out = parts.get("train"), next((parts[name] for name in HELD_OUT if name in parts), None)
    if held_out is not None and train is None:
        raise FileNotFoundError(
            f"{folder} has a part {held_out.name} but none called train; add it, or name {held_out}"
        )
    root = held_out if held_out is not None and split == "test" else train or folder
    try:
        found = ImageFolder(str(root))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{root} has no images in a subfolder for each class: {error}") from error
    if root == held_out and (odd := {*found.classes} ^ {entry.name for entry in train.iterdir() if entry.is_dir()}):
        raise ValueError(f"{held_out} has other classes than {train}: only one has {', '.join(sorted(odd)[:5])}")
    return [(path, label, path) for path, label in found.samples], held_out is None


def _parquet_files(place: str, download: bool) -> dict[str, list[Path]]:
    """Returns a data set's parquet files by split."""
    if Path(place).is_dir():
        files = {path.relative_to(place).as_posix(): path for path in sorted(Path(place).rglob("*.parquet"))}
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place):
        files = _from_hub(place, download)
    else:
        raise FileNotFoundError(f"no folder {place} with parquet files; a data set on the Hub is user/name")
    found: dict[str, list[Path]] = {}
    folders: set[str] = set()
    for name, path in files.items():
        if match := _PART.fullmatch(name):
            found.setdefault(match[1], []).append(path)
            folders.add(name.rpartition("/")[0])
    if "train" not in found:
        raise FileNotFoundError(f"{place} has no parquet file whose name begins with train; it has {sorted(files)[:5]}")
    if len(folders) > 1:
        listed = ", ".join(folder or "its root" for folder in sorted(folders))
        raise ValueError(f"{place} has parquet files in {listed}: name one folder of a local copy")
    for part, paths in found.items():
        count = paths[0].stem.rpartition("-of-")[2]
        if count.isdecimal() and int(count) != len(paths):
            raise FileNotFoundError(f"{place} has {len(paths)} of {int(count)} files for {part}; get the others too")
    return found


def _from_hub(repo: str, download: bool) -> dict[str, Path]:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repo, repo_type="dataset", allow_patterns="*.parquet", local_files_only=not download)
    except Exception as error:  # transport errors are of httpx or httpx2, which no code of ours should name
        hint = "check the name and the network" if download else "pass --download to fetch it"
        raise FileNotFoundError(f"the data set {repo} is neither a folder nor cached ({error}); {hint}") from error
    return {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*.parquet"))}


def _parquet_samples(files: dict[str, list[Path]], split: str, place: str) -> tuple[list[Sample], bool]:
    """Returns the images of parquet files, and whether they are those of both splits; labels are numbered in order."""
    held_out = next((files[name] for name in HELD_OUT if name in files), None)
    chosen = files["train"] if split == "train" or held_out is None else held_out
    read = {path: read_parquet(path) for path in {*files["train"], *chosen}}
    labels = {label for path in files["train"] for label in read[path][1]}
    number = {label: i for i, label in enumerate(sorted(labels))}
    samples: list[Sample] = []
    for path in chosen:
        for row, (cell, label) in enumerate(zip(*read[path], strict=True)):
            if label not in number:
                raise ValueError(
                    f"{path} has the label {label!r} in row {row}, which the training part of {place} lacks"
                )
            samples.append((cell, number[label], f"{path}, row {row}"))
    return samples, held_out is None


def read_parquet(path: Path) -> tuple[list[bytes], list[Any]]:
    """Reads the encoded images and the labels of a parquet file in the manner of the Hub.

    Its image column holds the files' bytes, or a structure with an entry ``bytes``; its label column is called
    ``label``, ``labels`` or ``fine_label``, or is the only one of whole numbers or texts.

    Raises:
        ValueError: The file is broken, or has no such columns.
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
        raise ValueError(f"{path} is no whole parquet file ({error}); get it anew") from error
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table[images[0]].to_pylist()]
    found = table[labels[0]].to_pylist()
    for kind, values in (("image", cells), ("label", found)):
        if None in values:
            raise ValueError(f"{path} has no {kind} in row {values.index(None)}; drop that row")
    return cells, found


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    inside = {field.name for field in kind} if types.is_struct(kind) else set()
    return types.is_binary(kind) or types.is_large_binary(kind) or "bytes" in inside


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)


def _same_size(name: str, size: int | None, samples: list[Sample]) -> Iterator[np.ndarray]:
    """Decodes images as RGB, reduced to ``size`` where it is given; raises where they differ in size."""
    from PIL import Image, ImageOps

    first = None
    for source, _, called in samples:
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
                mode, image = file.mode, file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{called} cannot be read as an image: {error}; remove it") from error
        if mode.startswith(("I", "F")):
            raise ValueError(f"{called} has more than 8 bits a channel (mode {mode}); reduce it to 8")
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        first = first or image.size
        if image.size != first or image.size[0] != image.size[1]:
            raise ValueError(
                f"the images of {name} are not squares of one size: {called} is {image.size[0]}×{image.size[1]}, the "
                f"first {first[0]}×{first[1]}; write {name}@64 to reduce all to 64×64"
            )
        yield np.asarray(image)
