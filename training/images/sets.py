"""Data sets as tensors: MNIST and the like, CIFAR-10 and CIFAR-100, Tiny ImageNet at 32×32, and a user's own images.

A missing set raises an error that says how to get it. No set is ever replaced by another one.
"""

import gzip
import hashlib
import http.client
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from dwp_init.storage import make_folder, write_bytes
from training.images import fashion
from training.images.own import PLACES, check_own, is_own, read_own
from training.images.parquet import check_complete, decode, read_parquet

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Images:
    """A labelled set of images.

    Args:
        images: ``(n, c, h, w)``, uint8.
        labels: ``(n,)``, int64.
        description: Its name, size and the digest of its contents.
    """

    images: Tensor
    labels: Tensor
    description: dict[str, Any]

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns images as float32 in [0, 1] and labels on ``device``; no other normalisation, as in the paper."""
        return self.images.to(device).float().div_(255), self.labels.to(device)


class NotMNIST(datasets.MNIST):  # type: ignore[misc]  # torchvision has no types
    """notMNIST (Bulatov 2011), letters A-J, in MNIST's format; 60,000 training and 10,000 test images.

    It is downloaded at a pinned commit of the repository that redistributes it with the author's permission. Each file
    is checked against its git blob id.
    """

    source = "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/17823f4"
    blobs: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6cf3076b36bafa7da1563b28bbe863fd78a008a8",
        "train-labels-idx1-ubyte": "285bdaffe3b109c555b8d43ff6fe0373e7b2a3ff",
        "t10k-images-idx3-ubyte": "5d531796d90741366f99a5381569a7aac18e63b0",
        "t10k-labels-idx1-ubyte": "52b510386bbe3ed235d22fdd932b2351a461e835",
    }

    def download(self) -> None:
        """Fetches the four files that are missing; each is checked before it is put in place."""
        folder = Path(self.raw_folder)
        for name, blob in self.blobs.items():
            if not (folder / name).exists():
                make_folder(folder)
                packed = fetch_checked(f"{self.source}/{name}.gz", git_blob=blob)
                write_bytes(folder / name, gzip.decompress(packed))


def fetch_checked(url: str, git_blob: str) -> bytes:
    """Downloads a file and checks it against its git blob id (SHA-1 of ``blob <size>\\0`` and the content).

    Raises:
        ValueError: The content has another id.
        OSError: The network failed.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            content: bytes = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"could not fetch {url}: {error}; put a copy under --data-root instead") from error
    found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if found != git_blob:
        raise ValueError(f"{url} has git blob id {found}, expected {git_blob}; nothing was written, try again")
    return content


def load_images(name: str, split: str, *, root: Path, download: bool = False, synthetic: bool = False) -> Images:
    """Loads one split of a data set.

    Args:
        name: ``mnist``, ``notmnist``, ``fashionmnist``, ``cifar10``, ``cifar100`` or ``tinyimagenet32-a``; or the
            place of a user's own images: ``imagefolder:PATH``, ``parquet:PATH`` or ``parquet:user/name``, see
            :func:`training.images.own.read_own`. With ``[0:20]`` at its end these classes alone, relabelled from 0.
        split: ``train`` or ``test``.
        root: The folder with the data sets, in torchvision's layout; those of colour images may be
            ``<name>/<split>-*.parquet`` instead, and FashionMNIST may be that of Debian's package.
        download: Whether a missing set is fetched into ``root``.
        synthetic: Whether to return random smooth images of the same shape, for ``--smoke``; the description says so.
            A user's own images are checked nevertheless.

    Raises:
        ValueError: The name or the split is unknown, or there are no such classes.
        FileNotFoundError: The set is not under ``root`` or is incomplete, and ``download`` is false; or a user's own
            images are not there.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    whole, wanted = _split_slice(name)
    if whole not in _SETS and not is_own(whole):
        raise ValueError(
            f"unknown data set {whole!r}; there are {', '.join(_SETS)}, and {':…, '.join(PLACES)}:… for your own images"
        )
    shape, classes, _ = _SETS.get(whole, ((3, 32, 32), 10, None))
    if synthetic:
        found = check_own(whole, split, download) if is_own(whole) else classes
        kept = _classes(name, wanted, found) if wanted is not None else range(classes)
        images, labels = _synthetic(shape, kept, count=512 if split == "train" else 128, seed=split)
    else:
        images, labels = _read(whole, split, root, download)
        if wanted is not None:
            kept = _classes(name, wanted, classes if whole in _SETS else int(labels.max()) + 1)
            chosen = (labels >= kept.start) & (labels < kept.stop)
            images, labels = images[chosen], labels[chosen] - kept.start
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    description = {"name": name, "images": len(images), "sha256": digest, "synthetic": synthetic}
    return Images(images, labels, description)


def kind_of_images(name: str) -> tuple[int, tuple[int, int, int]]:
    """Returns the number of classes and the shape ``(c, h, w)`` of a data set, without reading it.

    Slices count as the whole set, and a user's own images as those of CIFAR-10.
    """
    shape, classes, _ = _SETS.get(_split_slice(name)[0], ((3, 32, 32), 10, None))
    return classes, shape


def _split_slice(name: str) -> tuple[str, str | None]:
    """Splits ``NAME[0:20]`` into the name of the whole set and what is in the brackets, if there are any."""
    found = re.fullmatch(r"(.+)\[([-:\d]*)\]", name, re.ASCII)
    return (found[1], found[2]) if found else (name, None)


def _classes(name: str, wanted: str, count: int) -> range:
    """Returns the classes that the brackets of a name ask for, of so many."""
    found = re.fullmatch(r"(\d*):(\d*)", wanted)
    start, stop = (int(found[1] or 0), int(found[2] or count)) if found else (0, 0)
    if not start < stop <= count:
        raise ValueError(
            f"{name!r} must end with [START:STOP], a range of classes within 0:{count}, as the set has {count} classes"
        )
    return range(start, stop)


def _read(name: str, split: str, root: Path, download: bool) -> tuple[Tensor, Tensor]:
    """Reads one split of a whole data set that is not synthetic."""
    if is_own(name):
        return _mixed(*read_own(name, split, download))
    shape, _, kind = _SETS[name]
    if shape[0] == 3 and (shards := sorted((root / name).glob(f"{split}-*.parquet"))):
        return _read_shards(shards, split, shape[1:])
    if kind is None:
        raise FileNotFoundError(
            f"{name} is not under {root} and cannot be fetched; make {root / name}/{split}-00000-of-00001.parquet with "
            "columns image and label of the first 100 classes of Tiny ImageNet-200, reduced to 32×32, or use other "
            "images with --data"
        )
    if kind is datasets.FashionMNIST and not (root / "FashionMNIST").exists() and fashion.PACKAGED.is_dir():
        return fashion.read_packaged(split, fashion.PACKAGED)
    return _read_torchvision(name, kind, split, root, download)


def _mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Puts images into one fixed mixed order, because a user's are sorted by class and the last ones are held out."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


_SETS: dict[str, tuple[tuple[int, int, int], int, Any]] = {
    "mnist": ((1, 28, 28), 10, datasets.MNIST),
    "notmnist": ((1, 28, 28), 10, NotMNIST),
    "fashionmnist": ((1, 28, 28), 10, datasets.FashionMNIST),
    "cifar10": ((3, 32, 32), 10, datasets.CIFAR10),
    "cifar100": ((3, 32, 32), 100, datasets.CIFAR100),
    "tinyimagenet32-a": ((3, 32, 32), 100, None),
}


def _read_torchvision(name: str, kind: Any, split: str, root: Path, download: bool) -> tuple[Tensor, Tensor]:
    try:
        data = kind(str(root), train=split == "train", download=download)
        if len(data.data) != len(data.targets):
            raise ValueError(f"{len(data.data)} images, {len(data.targets)} labels")
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise FileNotFoundError(
            f"{name} is not under {root} or is incomplete ({error}); remove a broken copy and pass --download to fetch "
            "it, or pass --data-root with a complete copy"
        ) from error
    images = torch.as_tensor(np.asarray(data.data))
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(data.targets)


def _read_shards(shards: list[Path], split: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    check_complete(shards[0].parent, split, shards)
    rows = [row for shard in shards for row in read_parquet(shard)]
    images = [decode(cell, called) for cell, _, called in rows]
    if others := {image.shape[:2] for image in images} - {size}:
        raise ValueError(
            f"{shards[0].parent} has images of {'×'.join(map(str, min(others)))}; reduce them to "
            f"{'×'.join(map(str, size))}"
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor([row[1] for row in rows])


def _synthetic(shape: tuple[int, int, int], kept: range, count: int, seed: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SPLITS.index(seed))
    templates = torch.rand(kept.stop, *shape, generator=torch.Generator().manual_seed(7)).sub_(0.5)
    templates = torch.nn.functional.avg_pool2d(templates, 5, stride=1, padding=2).mul_(6)
    labels = torch.randint(len(kept), (count,), generator=generator)
    images = templates[kept.start + labels] + 0.3 * torch.randn(count, *shape, generator=generator)
    return images.add_(0.5).clamp_(0, 1).mul_(255).byte(), labels
