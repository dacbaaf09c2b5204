"""A user's own images. Each has one colour, which identifies it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.training.images.pictures import folder, parquet, values
from training.images.own import is_own, read_own, short_name
from training.images.sets import load_images

# Names


@pytest.mark.parametrize(
    ("name", "own", "short"),
    [
        ("imagefolder:/data/pets", True, "pets"),
        ("imagefolder:/data/pets/@32", True, "pets"),
        ("imagefolder:me@home", True, "me@home"),
        ("imagefolder:/data/pets/.", True, "pets"),
        ("parquet:user/pets@64", True, "pets"),
        ("cifar10", False, None),
        ("imagefolder", False, None),
        ("zip:/data/pets", False, None),
    ],
)
def test_names(name: str, own: bool, short: str | None) -> None:
    assert is_own(name) == own
    assert not own or short_name(name) == short


@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("", ValueError, "does not say where the images are; write {kind}:PATH"),
        ("@32", ValueError, "does not say where the images are; write {kind}:PATH"),
        ("pets@7", ValueError, "asks for images of 7×7; expected a size from 8 to 512"),
        ("pets@513", ValueError, "asks for images of 513×513"),
        ("/none", FileNotFoundError, "no folder /none with"),
        ("~/none", FileNotFoundError, "no folder /users/me/none with"),
    ],
)
def test_names_without_images(
    kind: str, place: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", "/users/me"))
    with pytest.raises(error, match=message.format(kind=kind)):
        read_own(f"{kind}:{place}", "train", download=False)


@pytest.mark.parametrize("name", ["cifar10", "cifar10:here", ""])
def test_names_of_another_kind(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name!r} is not a place .*; write imagefolder:PATH, parquet:PATH or parq"):
        short_name(name)


# A folder of images


def test_a_folder_without_parts_gives_every_tenth_image_to_the_test(tmp_path: Path) -> None:
    name = f"imagefolder:{folder(tmp_path, {'dog': range(20, 32), 'cat': range(13)})}"
    everything = [(value, 0) for value in range(13)] + [(value, 1) for value in range(20, 32)]
    assert values(name, "test") == [(9, 0), (26, 1)] == everything[9::10]
    assert values(name, "train") == [item for item in everything if item not in ((9, 0), (26, 1))]


PARTS = [("train", part) for part in ("test", "validation", "valid", "val")] + [
    ("Training", "Testing"),
    ("TRAIN", "Val"),
]


@pytest.mark.parametrize(("train", "part"), PARTS)
def test_a_folder_with_parts(train: str, part: str, tmp_path: Path) -> None:
    folder(tmp_path / train, {"a": range(11), "b": [20]})
    folder(tmp_path / part, {"b": [30], "a": [31]})
    assert values(f"imagefolder:{tmp_path}", "train") == [(value, 0) for value in range(11)] + [(20, 1)]
    assert values(f"imagefolder:{tmp_path}", "test") == [(31, 0), (30, 1)]


def test_a_test_part_is_preferred_to_a_validation_part(tmp_path: Path) -> None:
    for value, part in enumerate(("train", "val", "test")):
        folder(tmp_path / part, {"a": [value, 10 + value], "b": [20 + value]})
    assert values(f"imagefolder:{tmp_path}", "test") == [(2, 0), (12, 0), (22, 1)]


def test_test_images_without_classes_are_ignored(tmp_path: Path) -> None:
    """As they come from competitions."""
    folder(tmp_path / "train", {"a": range(9), "b": [20, 21]})
    folder(tmp_path, {"test": [90]})
    assert values(f"imagefolder:{tmp_path}", "test") == [(20, 1)]
    assert len(values(f"imagefolder:{tmp_path}", "train")) == 10


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    name = f"imagefolder:{folder(tmp_path, {'bus': range(6), 'train': range(20, 26), 'val': range(30, 32)})}"
    assert values(name, "test") == [(23, 1)]
    assert {label for _, label in values(name, "train")} == {0, 1, 2}


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(10), "b": range(20, 30)})
    for name in ("a/0.heic", "a/1.HEIC", "b/0.gif", "b/notes", "b/.hidden.txt", "a/._cat.jpg", "no class.txt"):
        (tmp_path / name).write_bytes(b"")
    name = f"imagefolder:{tmp_path}"
    with pytest.warns(UserWarning, match=r"not read, 1 \.gif, 2 \.heic, 1 without an ending, and 20 that are; to use"):
        assert len(values(name, "train")) == 18


def test_folders_in_a_class_that_has_images_too(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(10), "b": [20], "b/more": range(21, 30)})
    assert {label for value, label in values(f"imagefolder:{tmp_path}", "train") if value > 20} == {1}


def test_the_order_of_images_is_that_of_their_folders_and_names(tmp_path: Path) -> None:
    """Not that of whole paths, in which separators count, which differ between systems."""
    folder(tmp_path, {"a/b": range(4, 8), "a1": range(10, 14), "a": range(4), "a/b-1": range(8, 10)})
    everything = [(value, 0) for value in range(10)] + [(value, 1) for value in range(10, 14)]
    assert values(f"imagefolder:{tmp_path}", "train") == [item for item in everything if item[0] != 9]


def test_sizes_of_images(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(4), "b": range(10, 14)})
    folder(tmp_path, {"c": range(20, 24)}, 24, 16)
    with pytest.raises(ValueError, match=r"c/020.png is 24×16, the first 8×8; write imagefolder:.*@64 to reduce all"):
        read_own(f"imagefolder:{tmp_path}", "train", download=False)
    assert read_own(f"imagefolder:{tmp_path}@16", "train", download=False)[0].shape == (11, 3, 16, 16)
    assert values(f"imagefolder:{tmp_path}@16", "test") == [(21, 2)]


def test_images_of_one_size_must_be_squares(tmp_path: Path) -> None:
    folder(tmp_path, {"a": range(6), "b": range(6)}, 12, 8)
    with pytest.raises(ValueError, match=r"a/000.png is 12×8; write imagefolder"):
        read_own(f"imagefolder:{tmp_path}", "train", download=False)


def both(root: Path, train: dict[str, Sequence[int]], test: dict[str, Sequence[int]]) -> None:
    folder(root / "train", train)
    folder(root / "test", test)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda root: None, FileNotFoundError, r"has no images \(\.jpg, .* in a subfolder for each class"),
        (
            lambda root: folder(root, {"a": []}),
            FileNotFoundError,
            r"has no images \(\.jpg, .* in a subfolder for each class",
        ),
        (
            lambda root: folder(root, {"a": range(5), "b": range(4)}),
            FileNotFoundError,
            "no images for the test split; it needs 10 or more in all",
        ),
        (
            lambda root: both(root, {"a": range(9), "b": [1]}, {"a": [1], "c": [1]}),
            ValueError,
            "/test has other classes than .*/train: only one has b, c",
        ),
        (lambda root: both(root, {"a": [1, 2], "b": [1]}, {"a": [1]}), ValueError, "only one has b$"),
        (
            lambda root: folder(root / "val", {"a": range(9), "b": range(9)}),
            FileNotFoundError,
            "has a part val but none called train; add it, or name .*/val",
        ),
        (
            lambda root: folder(root / "train" / "photos", {"x": range(9), "y": range(9)}),
            ValueError,
            "photos holds no images but the folders x, y, which would be one class; name imagefolder:.*/train/photos",
        ),
        (
            lambda root: [
                both(root, {"a/images": range(9), "b": range(9)}, {"a": [1], "b/y": [1]}),
                folder(root / "test" / "b" / "z", {".": [1]}),
            ],
            ValueError,
            "test/b holds no images but the folders y, z, which would be one class",
        ),
        (
            lambda root: [folder(root / part, {"a": [1]}) for part in ("train", "training", "test")],
            ValueError,
            "has the parts test, train, training, several for the same use; join or rename them",
        ),
    ],
)
def test_unsuitable_folders(
    make: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(error, match=message):
        read_own(f"imagefolder:{tmp_path}", "test", download=False)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": range(12)}, "has 11 images of 1 classes to train on; give two classes or more, and several images of"),
        ({str(i): [i] for i in range(12)}, "has 11 images of 11 classes to train on"),
    ],
)
def test_labels_must_differ_and_repeat(classes: dict[str, Sequence[int]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_own(f"imagefolder:{folder(tmp_path, classes)}", "train", download=False)


# Parquet files


@pytest.mark.parametrize(("training", "part"), PARTS)
def test_parquet_with_parts(training: str, part: str, tmp_path: Path) -> None:
    parquet(tmp_path / "data" / f"{training}-00000-of-00002.parquet", range(6), [2, 1, 0, 0, 1, 2])
    parquet(tmp_path / "data" / f"{training}-00001-of-00002.parquet", range(6, 12), [0] * 6)
    parquet(tmp_path / "data" / f"{part}-00000-of-00001.parquet", [50, 51], [1, 0])
    (tmp_path / "data" / "README.md").write_text("# Pets")
    train = list(zip(range(12), [2, 1, 0, 0, 1, 2] + [0] * 6, strict=True))
    assert values(f"parquet:{tmp_path}", "train") == train
    assert values(f"parquet:{tmp_path}", "test") == [(50, 1), (51, 0)]
    assert values(f"parquet:{tmp_path}/data", "test") == [(50, 1), (51, 0)]


def test_parquet_without_a_test_part_gives_every_tenth_row(tmp_path: Path) -> None:
    for i in range(2):
        parquet(tmp_path / f"train-{i:05}-of-00002.parquet", range(10 * i, 10 * i + 10), [0, 1] * 5)
    assert values(f"parquet:{tmp_path}", "test") == [(9, 1), (19, 1)]
    assert values(f"parquet:{tmp_path}", "train") == [(i, i % 2) for i in range(20) if i % 10 != 9]


TEXTS = ["dog", "cat", "emu", "cat"]


@pytest.mark.parametrize(
    "labels",
    [
        TEXTS,
        pyarrow.array(TEXTS, pyarrow.large_string()),
        pyarrow.array(TEXTS).dictionary_encode(),
        [7, -1, 900_000, -1],
    ],
    ids=["texts", "large texts", "categories", "numbers"],
)
def test_labels_are_numbered_in_order(labels: Any, tmp_path: Path) -> None:
    """Those of the training part, for both; a number far out makes no network of so many outputs."""
    parquet(tmp_path / "train.parquet", range(4), labels)
    parquet(tmp_path / "test.parquet", [50, 51], labels[2:])
    assert values(f"parquet:{tmp_path}", "train") == [(0, 1), (1, 0), (2, 2), (3, 0)]
    assert values(f"parquet:{tmp_path}", "test") == [(50, 2), (51, 0)]


def test_labels_that_the_training_part_lacks(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(3), [0, 1, 1])
    parquet(tmp_path / "test.parquet", range(2), [1, 2])
    with pytest.raises(ValueError, match=r"test\.parquet, row 1 has the label 2, which the training part of .* lacks"):
        read_own(f"parquet:{tmp_path}", "test", download=False)


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([], FileNotFoundError, r"has no parquet file whose name begins with train; it has \[\]"),
        (["train_0-of-3.parquet", "train_1-of-3.parquet"], FileNotFoundError, "has 2 of 3 files for train"),
        (["trainer.parquet", "test.parquet"], FileNotFoundError, r"it has \['test.parquet', 'trainer.parquet'\]"),
        (
            ["a/train.parquet", "b/train.parquet"],
            ValueError,
            "has parquet files in a, b: name one folder of a local copy",
        ),
        (["train.parquet", "b/test.parquet"], ValueError, "has parquet files in its root, b"),
        (
            ["train-00001-of-00003.parquet", "train-00000-of-00003.parquet"],
            FileNotFoundError,
            "has 2 of 3 files for train",
        ),
        (
            ["train.parquet", "test-00001-of-00002.parquet"],
            FileNotFoundError,
            "has 1 of 2 files for test; get the others",
        ),
    ],
)
def test_unsuitable_files(files: list[str], error: type[Exception], message: str, tmp_path: Path) -> None:
    for file in files:
        parquet(tmp_path / file, range(3), [0, 1, 1])
    with pytest.raises(error, match=message):
        read_own(f"parquet:{tmp_path}", "train", download=False)


# The Hub


@pytest.mark.parametrize("download", [True, False])
def test_a_data_set_on_the_hub(download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--download`` only the cache is asked."""
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", range(4), [0, 1, 1, 0])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [50], [1])
    asked = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, options["repo_type"], options["local_files_only"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert values("parquet:user/pets@8", "test", download=download) == [(50, 1)]
    assert asked == [("user/pets", "dataset", not download)]


def test_what_is_not_cached_can_be_fetched() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"user/pets is neither a folder nor cached .*; pass --download to fetch"
    ):
        read_own("parquet:user/pets", "train", download=False)


def test_a_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise RuntimeError("timed out")  # as an error of transport, of httpx, is no OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"user/pets .*\(timed out\); check the name and the network"):
        read_own("parquet:user/pets", "train", download=True)


# As a data set


def test_own_images_are_a_data_set(tmp_path: Path) -> None:
    name = f"imagefolder:{folder(tmp_path, {'a': range(10), 'b': range(10)})}"
    found = load_images(name, "test", root=Path("none"))
    assert found.images[:, 0, 0, 0].tolist() == [9, 9] and found.labels.tolist() == [0, 1]
    assert (found.description["name"], found.description["images"]) == (name, 2)
    assert not found.description["synthetic"]
    smoke = load_images(name, "test", root=Path("none"), synthetic=True)
    assert smoke.images.shape == (128, 3, 32, 32) and smoke.description["synthetic"]


@pytest.mark.parametrize("synthetic", [False, True])
def test_own_images_are_checked_even_if_synthetic_ones_replace_them(synthetic: bool, tmp_path: Path) -> None:
    path = tmp_path / "photos"
    for split in ("train", "test"):
        with pytest.raises(FileNotFoundError, match=f"no folder {path} with a subfolder of images for each class"):
            load_images(f"imagefolder:{path}@32", split, root=tmp_path, synthetic=synthetic)
    folder(path, {"a": range(10), "b": range(10)})
    (path / "a" / "005.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"005\.png"):
        load_images(f"imagefolder:{path}", "train", root=tmp_path, synthetic=synthetic)
