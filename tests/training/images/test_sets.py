import gzip
import hashlib
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from tests.training.loopback import Server
from training.images import fashion
from training.images.sets import NotMNIST, fetch_checked, load_images

FOLDERS = {"mnist": "MNIST", "notmnist": "NotMNIST", "fashionmnist": "FashionMNIST"}


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_grey(root: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes 5 training and 3 test images as IDX files."""
    raw = root / FOLDERS[name] / "raw"
    raw.mkdir(parents=True)
    found = {}
    for split, prefix, n in (("train", "train", 5), ("test", "t10k", 3)):
        found[split] = pictures(n, 28, 28, seed=n), np.arange(n, dtype=np.uint8)[::-1].copy()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(found[split][0]))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(found[split][1]))
    return found


def write_parquet(
    root: Path, split: str, parts: int = 2, name: str = "cifar10", size: int = 32
) -> tuple[np.ndarray, list[int]]:
    """Writes two PNG images a part."""
    (root / name).mkdir(parents=True, exist_ok=True)
    images, labels = pictures(2 * parts, size, size, 3), list(range(2 * parts))[::-1]
    for part in range(parts):
        cells = []
        for image in images[2 * part : 2 * part + 2]:
            packed = io.BytesIO()
            Image.fromarray(image).save(packed, "PNG")
            cells.append({"bytes": packed.getvalue(), "path": None})
        table = pyarrow.table({"img": cells, "label": labels[2 * part : 2 * part + 2]})
        pyarrow.parquet.write_table(table, root / name / f"{split}-{part:05}-of-{parts:05}.parquet")
    return images, labels


def write_cifar(root: Path, kind: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Writes torchvision's layout, two training and three test images, and lifts its checksums."""
    fine = "fine_labels" if kind is datasets.CIFAR100 else "labels"
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    found = {"train": pictures(2, 3, 32, 32), "test": pictures(3, 3, 32, 32, seed=1)}
    for split, images in found.items():
        content = {"data": images.reshape(len(images), -1), fine: list(range(len(images)))}
        (folder / split).write_bytes(pickle.dumps(content))
        monkeypatch.setattr(kind, f"{split}_list", [[split, None]])
    (folder / "meta").write_bytes(pickle.dumps({"names": []}))
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": None})
    return found


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Debian's FashionMNIST would be."""
    monkeypatch.setattr(fashion, "PACKAGED", tmp_path / "packaged")
    return tmp_path / "packaged"


@pytest.mark.parametrize("name", ["mnist", "notmnist", "fashionmnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_are_read_as_they_are(tmp_path: Path, name: str, split: str) -> None:
    images, labels = write_grey(tmp_path, name)[split]
    found = load_images(name, split, root=tmp_path)
    assert torch.equal(found.images, torch.from_numpy(images)[:, None]) and found.images.dtype == torch.uint8
    assert found.labels.tolist() == labels.tolist() and found.labels.dtype == torch.int64
    expected = hashlib.sha256(images.tobytes() + labels.astype(np.int64).tobytes()).hexdigest()
    assert found.description == {"name": name, "images": len(images), "sha256": expected, "synthetic": False}
    scaled, same = found.to(torch.device("cpu"))
    torch.testing.assert_close(scaled, torch.from_numpy(images)[:, None] / 255)
    assert torch.equal(same, found.labels)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tinyimagenet32-a"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_parquet_is_read_as_it_is(tmp_path: Path, split: str, name: str) -> None:
    images, labels = write_parquet(tmp_path, split, name=name)
    found = load_images(name, split, root=tmp_path)
    assert torch.equal(found.images, torch.from_numpy(images.transpose(0, 3, 1, 2))) and found.images.is_contiguous()
    assert found.labels.tolist() == labels and found.labels.dtype == torch.int64


def test_missing_parquet_files(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", parts=3)
    (tmp_path / "cifar10" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="cifar10 has 2 of 3 files for train; get the others too"):
        load_images("cifar10", "train", root=tmp_path)


def test_ones_own_images_are_mixed(tmp_path: Path) -> None:
    """They come class by class, so that the last ones, which may be held out, would be of one class."""
    for label in range(2):
        (tmp_path / str(label)).mkdir()
        for i in range(20):
            Image.new("RGB", (8, 8), (100 * label + i, 0, 0)).save(tmp_path / str(label) / f"{i:02}.png")
    found, again = (load_images(f"imagefolder:{tmp_path}", "train", root=tmp_path) for _ in range(2))
    assert torch.equal(found.images, again.images) and torch.equal(found.labels, again.labels)
    assert torch.equal(found.images[:, 0, 0, 0] // 100, found.labels)
    assert 0 < found.labels[-10:].sum() < 10


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvision_layout(tmp_path: Path, name: str, kind: type, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_cifar(tmp_path, kind, monkeypatch)[split]
    found = load_images(name, split, root=tmp_path)
    assert torch.equal(found.images, torch.from_numpy(images)) and found.images.is_contiguous()
    assert found.labels.tolist() == list(range(len(images)))


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("fashion", "train", "unknown data set 'fashion'; there are mnist, notmnist, fashionmnist, cifar10, cifar100"),
        ("fashion[0:2]", "train", "unknown data set 'fashion'"),
        ("cifar10[a]", "train", r"unknown data set 'cifar10\[a\]'"),
        ("fashion:mine", "train", "unknown .*tinyimagenet32-a, and imagefolder:…, parquet:… for your own images"),
        ("mnist", "validation", "unknown split 'validation'; there are train, test"),
    ],
)
def test_unknown_names(tmp_path: Path, name: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_images(name, split, root=tmp_path, synthetic=True)


@pytest.mark.parametrize("missing", ["mnist", "notmnist", "fashionmnist", "cifar10", "cifar100"])
def test_nothing_replaces_a_missing_set(tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOLDERS.keys() - {missing}:
        write_grey(tmp_path, name)
    if missing != "cifar10":
        write_parquet(tmp_path, "train")
    if missing != "cifar100":
        write_cifar(tmp_path, datasets.CIFAR100, monkeypatch)
    with pytest.raises(FileNotFoundError, match=f"^{missing} is not under {tmp_path}.*--download.*--data-root"):
        load_images(missing, "train", root=tmp_path)


@pytest.mark.parametrize(("wanted", "kept"), [("0:2", [0, 1]), (":2", [0, 1]), ("3:5", [3, 4]), ("1:", range(1, 10))])
@pytest.mark.parametrize("split", ["train", "test"])
def test_some_classes_of_a_set(tmp_path: Path, split: str, wanted: str, kept: list[int]) -> None:
    """Their images are in the order of the set, the labels begin at 0, and the digest is theirs."""
    write_grey(tmp_path, "mnist")
    found, whole = (load_images(name, split, root=tmp_path) for name in (f"mnist[{wanted}]", "mnist"))
    rows = [row for row, label in enumerate(whole.labels.tolist()) if label in kept]
    assert torch.equal(found.images, whole.images[rows])
    assert torch.equal(found.labels, whole.labels[rows] - kept[0])
    digest = hashlib.sha256(found.images.numpy().tobytes() + found.labels.numpy().tobytes()).hexdigest()
    assert found.description == whole.description | {
        "name": f"mnist[{wanted}]",
        "images": len(rows),
        "sha256": digest,
    }


@pytest.mark.parametrize("synthetic", [True, False])
@pytest.mark.parametrize("wanted", ["0:11", "2:2", "5:3", "-2:", "3", "::2", ""])
def test_classes_that_a_set_lacks(tmp_path: Path, synthetic: bool, wanted: str) -> None:
    write_grey(tmp_path, "mnist")
    message = rf"'mnist\[{wanted}\]' must end with \[START:STOP\], .* within 0:10, as the set has 10 classes"
    with pytest.raises(ValueError, match=message):
        load_images(f"mnist[{wanted}]", "train", root=tmp_path, synthetic=synthetic)


def test_classes_of_ones_own_images(tmp_path: Path) -> None:
    """They are counted, in a smoke run too."""
    for label in range(12):
        (tmp_path / "train" / f"{label:02}").mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8), (20 * label, i, 0)).save(tmp_path / "train" / f"{label:02}" / f"{i}.png")
    (tmp_path / "train").rename(tmp_path / "own[x]")
    name = f"imagefolder:{tmp_path}/own[x]"
    found = load_images(f"{name}[10:12]", "train", root=tmp_path)
    assert torch.equal(found.images[:, 0, 0, 0], (20 * (10 + found.labels)).byte())
    assert load_images(f"{name}[9:12]", "train", root=tmp_path, synthetic=True).labels.max() == 2
    for synthetic in (True, False):
        with pytest.raises(ValueError, match="as the set has 12 classes"):
            load_images(f"{name}[10:13]", "train", root=tmp_path, synthetic=synthetic)


def test_fashion_of_debian_stands_in_for_a_missing_one(
    tmp_path: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken where there is another, and not downloaded."""
    images, labels = write_grey(tmp_path / "origin", "fashionmnist")["test"]
    packaged.mkdir()
    for path in (tmp_path / "origin" / "FashionMNIST" / "raw").iterdir():
        monkeypatch.setitem(fashion.SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        (packaged / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    found = load_images("fashionmnist", "test", root=tmp_path, download=True)
    assert torch.equal(found.images, torch.from_numpy(images)[:, None]) and found.labels.tolist() == labels.tolist()
    assert not (tmp_path / "FashionMNIST").exists()
    (tmp_path / "FashionMNIST").mkdir()
    with pytest.raises(FileNotFoundError, match="fashionmnist is not under"):
        load_images("fashionmnist", "test", root=tmp_path)


def test_tiny_imagenet_cannot_be_fetched(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train")
    message = f"^tinyimagenet32-a is not under {tmp_path} and cannot be fetched; make .*/train-00000-of-00001.parquet"
    with pytest.raises(FileNotFoundError, match=message):
        load_images("tinyimagenet32-a", "train", root=tmp_path, download=True)


def test_parquet_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", name="tinyimagenet32-a", size=64)
    with pytest.raises(ValueError, match="tinyimagenet32-a has images of 64×64; reduce them to 32×32"):
        load_images("tinyimagenet32-a", "train", root=tmp_path)


def test_colour_images_do_not_replace_grey_ones(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", name="mnist", size=28)
    with pytest.raises(FileNotFoundError, match=r"^mnist is not under"):
        load_images("mnist", "train", root=tmp_path)


def test_one_split_does_not_replace_the_other(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="cifar10 is not under"):
        load_images("cifar10", "test", root=tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_grey(tmp_path, "mnist")
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(FileNotFoundError, match=r"mnist is not under .* or is incomplete .*3919.*remove a broken copy"):
        load_images("mnist", "train", root=tmp_path)
    images.write_bytes(idx(pictures(4, 28, 28)))
    with pytest.raises(FileNotFoundError, match=r"incomplete \(4 images, 5 labels\)"):
        load_images("mnist", "train", root=tmp_path)


def blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def test_fetch_checks_the_blob(server: Server) -> None:
    server.files["/hello"] = b"hello\n"
    assert (
        fetch_checked(f"{server.url}/hello", "ce013625030ba8dba906f756967f9e9ca394464a") == b"hello\n"
    )  # as git knows it
    with pytest.raises(ValueError, match=f"has git blob id ce013625.*, expected {'0' * 40}; nothing was written"):
        fetch_checked(f"{server.url}/hello", "0" * 40)


@pytest.mark.parametrize("fault", ["missing", "cut", "refused"])
def test_fetch_names_the_way_out_of_a_network_error(server: Server, fault: str) -> None:
    server.files["/cut"], server.cut = bytes(1000), {"/cut"}
    url = "http://127.0.0.1:1" if fault == "refused" else f"{server.url}/{fault}"
    with pytest.raises(OSError, match=f"could not fetch {url}: .*; put a copy under --data-root"):
        fetch_checked(url, blob(bytes(1000)))


@pytest.fixture
def archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A small notMNIST on the server, in place of the real one."""
    write_grey(tmp_path / "origin", "notmnist")
    for path in (tmp_path / "origin" / "NotMNIST" / "raw").iterdir():
        server.files[f"/{path.name}.gz"] = gzip.compress(path.read_bytes())
    blobs = {name: blob(server.files[f"/{name}.gz"]) for name in NotMNIST.blobs}
    monkeypatch.setattr(NotMNIST, "source", server.url)
    monkeypatch.setattr(NotMNIST, "blobs", blobs)
    return server


def images_of(root: Path, **options: bool) -> Tensor:
    return load_images("notmnist", "train", root=root, **options).images


def test_notmnist_is_downloaded_once(archive: Server, tmp_path: Path) -> None:
    assert torch.equal(images_of(tmp_path, download=True), images_of(tmp_path / "origin"))
    assert torch.equal(images_of(tmp_path, download=True), images_of(tmp_path))
    assert len(archive.asked) == 4


@pytest.mark.parametrize("fault", ["cut", "forged"])
def test_a_failed_download_leaves_no_broken_file(archive: Server, tmp_path: Path, fault: str) -> None:
    path = "/t10k-images-idx3-ubyte.gz"
    whole = archive.files[path]
    if fault == "cut":
        archive.cut = {path}
    else:
        archive.files[path] = gzip.compress(b"forged")
    with pytest.raises(
        OSError, match=f"{path}.*{'nothing was written' if fault == 'forged' else 'could|IncompleteRead'}"
    ):
        images_of(tmp_path, download=True)
    raw = tmp_path / "NotMNIST" / "raw"
    assert sorted(file.name for file in raw.iterdir()) == ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
    archive.cut, archive.files[path] = set(), whole
    assert torch.equal(images_of(tmp_path, download=True), images_of(tmp_path / "origin"))
    assert len(archive.asked) == 5


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (1, 28, 28), 10),
        ("notmnist", (1, 28, 28), 10),
        ("fashionmnist", (1, 28, 28), 10),
        ("tinyimagenet32-a[80:]", (3, 32, 32), 20),
        ("cifar10", (3, 32, 32), 10),
        ("cifar100", (3, 32, 32), 100),
        ("tinyimagenet32-a", (3, 32, 32), 100),
    ],
)
def test_synthetic_images(tmp_path: Path, name: str, shape: tuple[int, ...], classes: int) -> None:
    train, test = (load_images(name, split, root=tmp_path, synthetic=True) for split in ("train", "test"))
    again = load_images(name, "train", root=tmp_path, synthetic=True)
    assert train.images.shape == (512, *shape) and test.images.shape == (128, *shape)
    assert train.images.dtype == torch.uint8 and train.labels.max() == classes - 1
    assert train.description["synthetic"] and train.description == again.description
    assert torch.equal(train.images, again.images) and not torch.equal(train.images[:128], test.images)


def test_synthetic_classes_can_be_told_apart(tmp_path: Path) -> None:
    """The nearest mean of the training images classifies the test images."""
    (images, labels), (test, expected) = (
        load_images("mnist", split, root=tmp_path, synthetic=True).to(torch.device("cpu"))
        for split in ("train", "test")
    )
    means = torch.stack([images[labels == label].mean(0) for label in range(10)]).flatten(1)
    assert (torch.cdist(test.flatten(1), means).argmin(1) == expected).float().mean() > 0.95
