"""FashionMNIST (Xiao et al. 2017) as Debian's package ``dataset-fashion-mnist`` installs it, MIT licence."""

import gzip
import hashlib
import zlib
from pathlib import Path

import torch
from torch import Tensor

PACKAGED = Path("/usr/share/datasets/fashion-mnist")  # where Debian puts it
SHA256 = {  # of the content of each file, without compression; torchvision's files have the same
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_SIZE = 28
_WAY_OUT = "install Debian's package dataset-fashion-mnist again, or put a copy under --data-root"


def read_packaged(split: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Reads the images ``(n, 1, 28, 28)`` uint8 and the labels ``(n,)`` of a split from ``<folder>/*.gz``.

    Raises:
        FileNotFoundError: A file is missing, broken, or has other content than the original.
    """
    prefix = "train" if split == "train" else "t10k"
    images = _content(folder, f"{prefix}-images-idx3-ubyte", header=16).view(-1, 1, _SIZE, _SIZE)
    return images, _content(folder, f"{prefix}-labels-idx1-ubyte", header=8).long()


def _content(folder: Path, name: str, header: int) -> Tensor:
    path = folder / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise FileNotFoundError(f"{path} cannot be read ({error}); {_WAY_OUT}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise FileNotFoundError(f"{path} has the SHA-256 {found}, expected {SHA256[name]}; {_WAY_OUT}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].clone()
