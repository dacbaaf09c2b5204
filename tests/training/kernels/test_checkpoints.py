"""Finding checkpoints: files, folders, shards, and the Hub, which is asked by no test."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.kernels.checkpoints import Checkpoint, Entry, find_checkpoints, natural

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.full((2, 3), float(i)) for i, name in enumerate(names)}, path)
    return path


def save_shards(folder: Path) -> None:
    """Tensors a and b in two shards, and their index."""
    shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    for name, file in shards.items():
        save(folder / file, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def names(*sources: object) -> list[str]:
    return [checkpoint.name for checkpoint in find_checkpoints(map(str, sources))]


def test_numbers_are_sorted_as_numbers() -> None:
    found = sorted(["block.10.w", "block.2.w", "10", "block.2.10.w", "block.2.9.w", "9", "a10b", "a9b10"], key=natural)
    assert found == ["9", "10", "a9b10", "a10b", "block.2.9.w", "block.2.10.w", "block.2.w", "block.10.w"]


def test_each_file_of_a_folder_is_a_checkpoint(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    for name in ("run10.safetensors", "run9.safetensors", "deep/down/model.safetensors"):
        save(zoo / name, "a")
    (zoo / "pytorch_model.bin").write_bytes(b"never read")
    found = ["zoo/deep/down/model.safetensors", "zoo/run9.safetensors", "zoo/run10.safetensors"]
    assert names(zoo) == found
    assert names(zoo / "deep" / "..") == found  # no local path, whatever way the folder is written
    assert names(zoo / "run9.safetensors", zoo / "deep" / "down") == ["run9.safetensors", "down/model.safetensors"]


def test_checkpoints_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in "abc":
        save(tmp_path / folder / "model.safetensors", "w")
    sources = [tmp_path / folder / "model.safetensors" for folder in "abc"]
    assert names(*sources) == ["model.safetensors", "model.safetensors#2", "model.safetensors#3"]


def test_a_checkpoint_is_a_family_of_its_own() -> None:
    one, sibling = Checkpoint("one", ()), Checkpoint("two", (), family="one")
    assert (one.family, one.renamed("other").family) == ("one", "other")
    assert (sibling.family, sibling.renamed("other").family) == ("one", "one")
    assert not one.ordered and Entry("F32", (2, 3), Path()) == Entry("F32", (2, 3), Path(), layout="", groups=None)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    save_shards(tmp_path / "zoo" / "big")
    save(tmp_path / "zoo" / "big" / "other.safetensors", "c")
    shards, other = find_checkpoints([str(tmp_path / "zoo")])
    assert shards.name == "zoo/big/model.safetensors.index.json" and other.name == "zoo/big/other.safetensors"
    entries = shards.entries()
    assert {name: (entry.dtype, entry.shape) for name, entry in entries.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F32", (2, 3)),
    }
    assert [(name, tensor.shape) for name, tensor in shards.load(entries)] == [("a", (2, 3)), ("b", (2, 3))]
    assert list(other.entries()) == ["c"]


def lose_a_shard(folder: Path) -> None:
    (folder / "model-2-of-2.safetensors").unlink()


def lose_a_tensor(folder: Path) -> None:
    save(folder / "model-2-of-2.safetensors", "c")


def repeat_a_tensor(folder: Path) -> None:
    save(folder / "model-2-of-2.safetensors", "a", "b")


def leave(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))


def write_index(text: str) -> object:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_a_shard, "names 2 shards, of which model-2-of-2.safetensors is missing; get the shards again"),
        (lose_a_tensor, "lists b, which no shard holds; get the shards again"),
        (repeat_a_tensor, r"a is in both .*model-1-of-2.safetensors and .*model-2-of-2.safetensors; get"),
        (leave, r"names the shard '\.\./x\.safetensors'; shards must lie next to their index"),
        (write_index("{"), "is not an index with a weight_map .*; get it again, or remove it"),
        (write_index("[" * 100_000), "is not an index with a weight_map .*RecursionError"),
        (write_index("[]"), "is not an index with a weight_map"),
        (write_index("{}"), "is not an index with a weight_map"),
        (write_index('{"weight_map": {}}'), "is not an index with a weight_map"),
        (write_index('{"weight_map": {"a": 1}}'), "is not an index with a weight_map"),
    ],
)
def test_broken_shards(tmp_path: Path, change: object, message: str) -> None:
    save_shards(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        [checkpoint.entries() for checkpoint in find_checkpoints([str(tmp_path)])]


@pytest.mark.parametrize("length", [0, 4, 30, -1])
def test_a_broken_file_is_named(tmp_path: Path, length: int) -> None:
    path = save(tmp_path / "cut.safetensors", "a")
    path.write_bytes(path.read_bytes()[:length])
    (checkpoint,) = find_checkpoints([str(path)])
    with pytest.raises(
        ValueError, match=r"cut\.safetensors is not a complete safetensors file \(.*\); get it again, or remove"
    ):
        checkpoint.entries()


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_pickles_are_never_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"no pickle either")
    with pytest.raises(ValueError, match=f"model{suffix} is a pickle file, .*; convert it to safetensors: safetensors"):
        find_checkpoints([str(path)])
    with pytest.raises(ValueError, match=f"but 1 pickle file, such as model{suffix}, .*; convert it to safetensors"):
        find_checkpoints([str(tmp_path)])


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"a checkpoint's file ends in \.safetensors; got 'notes\.txt'"):
        find_checkpoints([str(tmp_path / "notes.txt")])
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors file under .*; give a folder, file or repository"):
        find_checkpoints([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*/none'; a repository on the Hub is user/name"):
        find_checkpoints([str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'zoo/none\.safetensors'; a repository"):
        find_checkpoints(["zoo/none.safetensors"])  # not the name of a repository
    with pytest.raises(FileNotFoundError, match="no file or folder ''; a repository"):
        find_checkpoints([""])  # not the current folder


class Snapshots:
    """Stands in for ``snapshot_download``: gives a folder, or raises."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.error = folder, [], None

    def __call__(self, repo: str, revision: str | None, allow_patterns: str) -> str:
        self.asked.append((repo, revision, allow_patterns))
        if self.error:
            raise self.error
        return str(self.folder)


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshots:
    fake = Snapshots(tmp_path / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    return fake


def test_a_repository_is_called_by_its_revision(snapshots: Snapshots) -> None:
    save(snapshots.folder / "model.safetensors", "a")
    assert names("user/net", "user/net@v1.0") == [f"user/net@{COMMIT}", "user/net@v1.0"]
    assert snapshots.asked == [("user/net", None, "*.safetensors*"), ("user/net", "v1.0", "*.safetensors*")]
    save(snapshots.folder / "unet" / "model.safetensors", "b")
    assert names("user/net@v1.0") == ["user/net@v1.0/model.safetensors", "user/net@v1.0/unet/model.safetensors"]


def test_shards_of_a_repository(snapshots: Snapshots) -> None:
    save_shards(snapshots.folder)
    (checkpoint,) = find_checkpoints(["user/net"])
    assert checkpoint.name == f"user/net@{COMMIT}" and list(checkpoint.entries()) == ["a", "b"]


def test_a_folder_here_comes_before_the_hub(
    tmp_path: Path, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "user" / "net" / "model.safetensors", "a")
    monkeypatch.chdir(tmp_path)
    assert names("user/net") == ["net/model.safetensors"] and not snapshots.asked


def test_repositories_that_cannot_be_had(snapshots: Snapshots) -> None:
    message = (
        r"user/net@.* holds no \.safetensors file; if it holds \.bin, \.pt or \.pth files, convert it to safetensors"
    )
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=message):
            find_checkpoints(["user/net"])
        snapshots.folder.mkdir(parents=True, exist_ok=True)
    snapshots.error = OSError("away")
    message = (
        r"user/net@v1 is neither a file or folder here nor a repository that the Hub gives \(away\); check the name"
    )
    with pytest.raises(FileNotFoundError, match=message):
        find_checkpoints(["user/net@v1"])
