"""A user's own images: a folder with a subfolder per class, or parquet files, also from the Hugging Face Hub.

The package ``datasets`` is not used. It takes every folder called ``train`` or ``val`` for a split, even where it is a
class, asks the network for a data set that is cached, and keeps a second copy of every image.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dwp_init.text import few
from training.images.parquet import Encoded, check_complete, decode, read_parquet

PLACES = ("imagefolder", "parquet")
FORMS = "imagefolder:PATH, parquet:PATH or parquet:user/name"
UNLICENSED = "not stated"  # the licence of what is made of a user's own kernels and images, until the user says it
TRAIN_PARTS = ("train", "training")  # names of the part to train on, in small or capital letters
TEST_PARTS = ("test", "testing", "validation", "valid", "val")  # of the part to test on, the first that exists
EVERY = 10  # without such a part, every tenth image is tested on
CHECKED = 64  # images of each split that are decoded where the set is checked, and not used

_Sample = tuple[Encoded, int, str]  # the image, its label, and what it is called in errors

_Part = TypeVar("_Part")
_PART = re.compile(rf"(?:.*/)?({'|'.join(TRAIN_PARTS + TEST_PARTS)})(?![a-z])[^/]*\.parquet", re.IGNORECASE)


def is_own(name: str) -> bool:
    """Whether a data set's name is the place of a user's own images: ``imagefolder:PATH`` or ``parquet:PATH``."""
    return name.partition(":")[0] in PLACES and ":" in name


def short_name(name: str) -> str:
    """Returns what to call a user's own data set: the last part of its path."""
    return os.path.basename(os.path.abspath(_parse(name)[1]))


def data_of(name: str) -> dict[str, str]:
    """Returns how sources record a data set: by its name, and a user's own without its path and without a licence."""
    return {"dataset": short_name(name), "license": UNLICENSED} if is_own(name) else {"dataset": name}


def read_own(name: str, split: str, download: bool) -> tuple[Tensor, Tensor]:
    """Reads one split of a user's own images, ``(n, 3, h, w)`` uint8, and their labels ``(n,)``.

    Args:
        name: ``imagefolder:PATH`` or ``parquet:PATH``, or ``parquet:user/name`` for a data set on the Hub; ``~`` is the
            user's home. With ``@64`` at its end the images are reduced to 64×64; only the middle square of an oblong
            image is kept. A folder has a subfolder of images for each class, or such folders for :data:`TRAIN_PARTS`
            and :data:`TEST_PARTS`. Of its files those are read that ``torchvision.datasets.ImageFolder`` reads; a
            warning says how many others there are. For transparency and orientation see
            :func:`training.images.parquet.decode`.
        split: ``train`` or ``test``. If there is neither a test nor a validation part, every tenth image is tested on.
        download: Whether a data set may be fetched from the Hub. A cached one is read without network access.

    Raises:
        FileNotFoundError: There is no such folder, or it has no images.
        ValueError: An image cannot be read, images differ in size, the labels are unclear or all alike, or a class of a
            folder holds only folders of images.
    """
    samples = _samples(name, split, download)
    return _decoded(name, samples), torch.tensor([label for _, label, _ in samples])


def check_own(name: str, split: str, download: bool) -> int:
    """Raises what :func:`read_own` would, but decodes at most :data:`CHECKED` images; returns the number of classes."""
    samples = _samples(name, split, download)
    _decoded(name, samples[:: -(-len(samples) // CHECKED)])
    return 1 + max(label for _, label, _ in samples)


def _samples(name: str, split: str, download: bool) -> list[_Sample]:
    kind, place, _ = _parse(name)
    if kind == "imagefolder":
        samples, both_splits = _folder_samples(Path(place), split)
    else:
        samples, both_splits = _parquet_samples(_parquet_files(place, download), split, place)
    if both_splits:
        samples = [sample for i, sample in enumerate(samples) if (i % EVERY == EVERY - 1) == (split == "test")]
    if not samples:
        raise FileNotFoundError(f"{name} has no images for the {split} split; it needs {EVERY} or more in all")
    classes = len({label for _, label, _ in samples})
    if split == "train" and not 1 < classes < len(samples):
        raise ValueError(
            f"{name} has {len(samples)} images of {classes} classes to train on; give two classes or more, and several "
            "images of a class"
        )
    return samples


def _parse(name: str) -> tuple[str, str, int | None]:
    kind, _, place = name.partition(":")
    if kind not in PLACES:
        raise ValueError(f"{name!r} is not a place of your own images; write {FORMS}")
    head, at, size = place.rpartition("@")
    sized = bool(at) and size.isdecimal()
    if sized and not 8 <= int(size) <= 512:
        raise ValueError(f"{name!r} asks for images of {size}×{size}; expected a size from 8 to 512")
    place = head if sized else place
    if not place:
        raise ValueError(f"{name!r} does not say where the images are; write {kind}:PATH")
    return kind, os.path.expanduser(place), int(size) if sized else None


def _train_and_test(parts: Mapping[str, _Part]) -> tuple[_Part | None, _Part | None]:
    """Returns the part to train on and the part to test on, of parts by their names in small letters."""
    train, test = (next((parts[name] for name in each if name in parts), None) for each in (TRAIN_PARTS, TEST_PARTS))
    return train, test


def _folder_samples(folder: Path, split: str) -> tuple[list[_Sample], bool]:
    """Returns the images of a folder, and whether they are those of both splits."""
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} with a subfolder of images for each class")
    train, held_out = _folder_parts(folder)
    root = held_out if held_out and split == "test" else train or folder
    try:
        found = ImageFolder(str(root), is_valid_file=lambda path: is_image_file(path) and not _is_beside(path))
    except FileNotFoundError as error:
        ends = ", ".join(IMG_EXTENSIONS)
        raise FileNotFoundError(f"{root} has no images ({ends}) in a subfolder for each class: {error}") from error
    classes = {entry.name for entry in (train or folder).iterdir() if entry.is_dir()}
    if root == held_out and (odd := {*found.classes} ^ classes):
        raise ValueError(f"{held_out} has other classes than {train}: only one has {', '.join(sorted(odd)[:5])}")
    _check_classes(root, found)
    samples = sorted(((Path(path), label) for path, label in found.samples), key=_place)
    return [(path, label, str(path)) for path, label in samples], held_out is None


def _is_beside(path: str) -> bool:
    """Whether a file is one that macOS puts beside another on foreign file systems, such as ``._cat.jpg``."""
    return os.path.basename(path).startswith("._")


def _place(sample: tuple[Path, int]) -> tuple[int, str, str]:
    """The place of an image in its data set, the same on every system: ImageFolder's on Linux."""
    path, label = sample
    return label, path.parent.as_posix(), path.name


def _folder_parts(folder: Path) -> tuple[Path | None, Path | None]:
    """Returns the parts of a folder to train on and to test on, which have subfolders and a telling name."""
    named = [part for part in sorted(folder.iterdir()) if part.name.lower() in TRAIN_PARTS + TEST_PARTS]
    named = [part for part in named if part.is_dir() and any(map(Path.is_dir, part.iterdir()))]
    parts = {part.name.lower(): part for part in named}
    if len(parts) < len(named) or {*TRAIN_PARTS} <= parts.keys():
        raise ValueError(
            f"{folder} has the parts {', '.join(part.name for part in named)}, several for the same use; join or "
            "rename them"
        )
    train, held_out = _train_and_test(parts)
    if held_out and not train:
        raise FileNotFoundError(
            f"{folder} has a part {held_out.name} but none called train; add it, or name {held_out}"
        )
    return train, held_out


def _check_classes(root: Path, found: Any) -> None:
    """Raises where a class holds only folders of images; warns of files that are not read."""
    with_images = {os.path.dirname(path) for path, _ in found.samples}
    nested = [name for name in found.classes if os.path.join(found.root, name) not in with_images]
    if nested := [name for name in nested if sum(map(Path.is_dir, (root / name).iterdir())) > 1]:
        inside = [path.name for path in sorted((root / nested[0]).iterdir()) if path.is_dir()]
        raise ValueError(
            f"{root / nested[0]} holds no images but the folders {few(inside)}, which would be one class; name "
            f"imagefolder:{root / nested[0]} if these are the classes, or move their images into {root / nested[0]}"
        )
    taken = {path for path, _ in found.samples}
    walks = (os.walk(os.path.join(found.root, name), followlinks=True) for name in found.classes)
    files = [os.path.join(at, file) for walk in walks for at, _, names in walk for file in names if file[0] != "."]
    if others := Counter(
        os.path.splitext(file)[1].lower() or "without an ending" for file in files if file not in taken
    ):
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
        warnings.warn(
            f"{root} has files that are not read, {counts}, and {len(taken)} that are; to use them, convert them to "
            "PNG or JPEG",
            stacklevel=2,
        )


def _parquet_files(place: str, download: bool) -> dict[str, list[Path]]:
    """Returns a data set's parquet files by split."""
    if Path(place).is_dir():
        root = Path(place)
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place):
        root = _from_hub(place, download)
    else:
        raise FileNotFoundError(f"no folder {place} with parquet files; a data set on the Hub is user/name")
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.parquet"))}
    found: dict[str, list[Path]] = {}
    folders: set[str] = set()
    for name, path in files.items():
        if match := _PART.fullmatch(name):
            found.setdefault(match[1].lower(), []).append(path)
            folders.add(name.rpartition("/")[0])
    if not found.keys() & {*TRAIN_PARTS}:
        raise FileNotFoundError(f"{place} has no parquet file whose name begins with train; it has {sorted(files)[:5]}")
    if len(folders) > 1:
        listed = ", ".join(folder or "its root" for folder in sorted(folders))
        raise ValueError(f"{place} has parquet files in {listed}: name one folder of a local copy")
    for part, paths in found.items():
        check_complete(place, part, paths)
    return found


def _from_hub(repo: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repo, repo_type="dataset", allow_patterns="*.parquet", local_files_only=not download)
        )
    except Exception as error:  # transport errors are of httpx or httpx2, and their classes should not be named here
        hint = "check the name and the network" if download else "pass --download to fetch it"
        raise FileNotFoundError(f"the data set {repo} is neither a folder nor cached ({error}); {hint}") from error


def _parquet_samples(files: dict[str, list[Path]], split: str, place: str) -> tuple[list[_Sample], bool]:
    """Returns the images of parquet files, and whether they are those of both splits; labels are numbered in order."""
    found, held_out = _train_and_test(files)
    train = found or []
    chosen = train if split == "train" or held_out is None else held_out
    rows = {path: read_parquet(path) for path in {*train, *chosen}}
    labels = {label for path in train for _, label, _ in rows[path]}
    number = {label: i for i, label in enumerate(sorted(labels, key=lambda label: (isinstance(label, str), label)))}
    samples: list[_Sample] = []
    for path in chosen:
        for cell, label, called in rows[path]:
            if label not in number:
                raise ValueError(f"{called} has the label {label!r}, which the training part of {place} lacks")
            samples.append((cell, number[label], called))
    return samples, held_out is None


def _decoded(name: str, samples: Sequence[_Sample]) -> Tensor:
    """Decodes images, ``(n, 3, h, w)``; raises where they differ in size."""
    images, size = [], _parse(name)[2]
    for source, _, called in samples:
        images.append(decode(source, called, size))
        (height, width), first = images[-1].shape[:2], images[0].shape[:2]
        if (height, width) != first or height != width:
            raise ValueError(
                f"the images of {name} are not squares of one size: {called} is {width}×{height}"
                + (f", the first {first[1]}×{first[0]}" if (height, width) != first else "")
                + f"; write {name}@64 to reduce all to 64×64"
            )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
