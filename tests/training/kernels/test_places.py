"""Finding checkpoints: files, folders, shards, packages, addresses, manifests, and the Hub, asked by no test."""

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import DryRunFileInfo
from huggingface_hub.errors import DryRunError, HfHubHTTPError
from safetensors.torch import save_file

from tests.training.loopback import Server
from training.kernels import downloads, places
from training.kernels.downloads import LARGEST_DOWNLOAD
from training.kernels.places import find_checkpoints

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


def test_each_file_of_a_folder_is_a_checkpoint(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    for name in ("run10.safetensors", "run9.safetensors", "deep/down/model.safetensors"):
        save(zoo / name, "a")
    (zoo / "pytorch_model.bin").write_bytes(b"never read")
    (zoo / "._run9.safetensors").write_bytes(b"what macOS keeps beside a file")
    found = ["zoo/deep/down/model.safetensors", "zoo/run9.safetensors", "zoo/run10.safetensors"]
    assert names(zoo) == found
    assert names(zoo / "deep" / "..") == found  # no local path, whatever way the folder is written
    assert names(zoo / "run9.safetensors", zoo / "deep" / "down") == ["down/model.safetensors", "run9.safetensors"]


def test_checkpoints_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By the order of their paths, whatever that of the sources is."""
    for folder in "abc":
        save(tmp_path / folder / "model.safetensors", folder)
    sources = [str(tmp_path / folder / "model.safetensors") for folder in "abc"]
    for given in (sources, sources[::-1]):
        found = {checkpoint.name: [*checkpoint.entries()] for checkpoint in find_checkpoints(given)}
        assert found == {"model.safetensors": ["a"], "model.safetensors#2": ["b"], "model.safetensors#3": ["c"]}


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


def test_files_of_all_formats_in_a_folder(tmp_path: Path) -> None:
    """Endings that may be anything are read only where the file is named, and one format in each folder."""
    zoo = tmp_path / "zoo"
    save(zoo / "c.safetensors", "a")
    (zoo / "in").mkdir()
    for name in ("a.pt", "b.pth", "d.bin", "e.ckpt", "in/f.pt", "in/g.pth"):
        torch.save({"x": torch.zeros(2)}, zoo / name)
    found = {each.name: (list(each.entries()), each.unread) for each in find_checkpoints([str(zoo)])}
    assert found == {
        "zoo/c.safetensors": (["a"], ("zoo/a.pt", "zoo/b.pth")),
        "zoo/in/f.pt": (["x"], ()),
        "zoo/in/g.pth": (["x"], ()),
    }
    save_shards(zoo / "in")
    assert names(zoo) == ["zoo/c.safetensors", "zoo/in/model.safetensors.index.json"]
    assert names(zoo / "d.bin", zoo / "e.ckpt") == ["d.bin", "e.ckpt"]


FORMATS = r"\.safetensors, \.onnx, \.pth or \.pt"


def test_nothing_there(tmp_path: Path) -> None:
    for name in ("notes.txt", "model.pkl"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"a checkpoint's file ends in \.safetensors, .* or \.ckpt; got 'notes\.txt'"):
        find_checkpoints([str(tmp_path / "notes.txt")])
    with pytest.raises(ValueError, match=r"model\.pkl is a pickle of any objects, .*; save a state dict from it"):
        find_checkpoints([str(tmp_path / "model.pkl")])
    with pytest.raises(FileNotFoundError, match=f"no {FORMATS} file under .*; give a folder, file or repository"):
        find_checkpoints([str(tmp_path)])
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(FileNotFoundError, match=f"no {FORMATS} file under .*; give model.bin itself, if it is a state"):
        find_checkpoints([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*/none'; a repository on the Hub is user/name"):
        find_checkpoints([str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'zoo/none\.onnx'; .* pypi:NAME==VERSION/FILE"):
        find_checkpoints(["zoo/none.onnx"])  # not the name of a repository
    with pytest.raises(FileNotFoundError, match="no file or folder ''; a repository"):
        find_checkpoints([""])  # not the current folder


class Snapshots:
    """Stands in for ``snapshot_download``: gives a folder, or raises."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.error, self.size = folder, [], None, 1

    def __call__(
        self,
        repo: str,
        revision: str | None,
        allow_patterns: list[str],
        dry_run: bool = False,
        local_files_only: bool = False,
    ) -> object:
        if self.error and not (local_files_only and self.folder.exists()):
            raise self.error
        if dry_run:
            common = {"commit_hash": COMMIT, "is_cached": False, "local_path": ""}
            return [
                DryRunFileInfo(file_size=self.size, filename="a", will_download=True, **common),
                DryRunFileInfo(file_size=2**40, filename="b", will_download=False, **common),
            ]
        self.asked.append((repo, revision, allow_patterns))
        return str(self.folder)


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshots:
    fake = Snapshots(tmp_path / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    return fake


def test_a_repository_is_called_by_its_commit(snapshots: Snapshots) -> None:
    save(snapshots.folder / "model.safetensors", "a")
    assert names("user/net", "user/net@v1.0") == [f"user/net@{COMMIT}", f"user/net@{COMMIT}#2"]
    assert snapshots.asked == [("user/net", None, ["*.safetensors*"]), ("user/net", "v1.0", ["*.safetensors*"])]
    save(snapshots.folder / "unet" / "model.safetensors", "b")
    files = [f"user/net@{COMMIT}/model.safetensors", f"user/net@{COMMIT}/unet/model.safetensors"]
    assert names("user/net@v1.0") == files
    snapshots.error = OSError("away")
    with pytest.warns(UserWarning, match=r"\(OSError: away\); using what the cache holds of user/net@v1.0, .* a part"):
        assert names("user/net@v1.0") == files
    snapshots.error = DryRunError("cannot plan")  # as the client puts it
    snapshots.error.__cause__ = HfHubHTTPError("no such repository", response=Mock(status_code=404))
    with pytest.raises(FileNotFoundError, match=r"user/net@v1.0 is neither a file .* that the Hub gives \(.*no such"):
        names("user/net@v1.0")


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


def test_other_formats_of_a_repository(snapshots: Snapshots) -> None:
    snapshots.folder.mkdir(parents=True)
    torch.save({"x": torch.zeros(2)}, snapshots.folder / "model.pth")
    assert names("user/net") == [f"user/net@{COMMIT}"]
    patterns = [["*.safetensors*"], ["*.onnx*"], ["*.pth*", "*.pt*"]]
    assert snapshots.asked == [("user/net", None, each) for each in patterns]  # what comes later is not downloaded


def test_repositories_that_cannot_be_had(snapshots: Snapshots) -> None:
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=f"user/net@.* holds no {FORMATS} file; name another repository"):
            find_checkpoints(["user/net"])
        snapshots.folder.mkdir(parents=True, exist_ok=True)
    snapshots.folder.rmdir()
    snapshots.error = OSError("no https://me:s3cret@mirror/net?token=s3cret")
    message = r"user/net@v1 is neither .* the Hub gives \(OSError: no https://…@mirror/net\?…\); check"
    with pytest.raises(FileNotFoundError, match=message):
        find_checkpoints(["user/net@v1"])


def test_a_repository_has_a_largest_size(snapshots: Snapshots) -> None:
    save(snapshots.folder / "model.safetensors", "a")
    snapshots.size = LARGEST_DOWNLOAD
    assert names("user/net") == [f"user/net@{COMMIT}"]
    snapshots.size += 1
    with pytest.raises(
        ValueError, match=r"user/net@v1 has 1,073,741,825 bytes to download, more than .*; run `hf down"
    ):
        names("user/net@v1")
    assert len(snapshots.asked) == 1


@pytest.fixture
def archive(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of a wheel with one checkpoint, which the index and the web have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    file, packed = save(tmp_path / "net.safetensors", "a"), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.write(file, "net/net.safetensors")
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    wheel_name = "net-1.0-py3-none-any.whl"
    server.files["/simple/net/"] = f'<a href="/{wheel_name}#sha256={digest}">{wheel_name}</a>'.encode()
    server.files[f"/{wheel_name}"] = packed.getvalue()
    return digest


def test_a_file_of_a_package(archive: str, server: Server) -> None:
    for _ in range(2):
        (checkpoint,) = find_checkpoints(["pypi:Net==1.0/net.safetensors"])
        assert checkpoint.name == "pypi:Net==1.0/net.safetensors" and list(checkpoint.entries()) == ["a"]
    assert server.asked.count("/net-1.0-py3-none-any.whl") == 1
    with pytest.raises(ValueError, match=r"has no file 'x\.pth'; name one of net/net\.safetensors"):
        find_checkpoints(["pypi:net==1.0/x.pth"])


def test_an_address(archive: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback server stands in for one that speaks TLS."""
    fetched = downloads.cached_file
    monkeypatch.setattr(
        places,
        "cached_file",
        lambda address, sha256: fetched(address.replace("https://me:secret@host", server.url).split("?")[0], sha256),
    )
    source = "https://me:secret@host/net-1.0-py3-none-any.whl?token=secret"
    (checkpoint,) = find_checkpoints([f"{source}#sha256={archive}&file=net/net.safetensors"])
    assert checkpoint.name == "https://host/net-1.0-py3-none-any.whl/net/net.safetensors"
    assert list(checkpoint.entries()) == ["a"]
    server.files["/a.pth"] = b"any"
    digest = hashlib.sha256(b"any").hexdigest()
    assert names(f"https://me:secret@host/a.pth#sha256={digest}") == ["https://host/a.pth"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pypi:net/net.pth", r"a file of a package is pypi:NAME==VERSION/FILE; got 'pypi:net/net\.pth'"),
        ("pypi:net==1.0/net.dat", r"a checkpoint's file ends in .*; got 'net\.dat'"),
        ("https://host/net.pth", r"needs the digest of its file, https://host/net\.pth#sha256=… .*; got ''"),
        ("https://host/net.pth#sha256=abc", r"needs the digest .* got 'sha256=abc'"),
        (f"https://host/net.pth#sha256={'0' * 64}&x=1", "needs the digest .*&x=1'"),
        (f"https://host/net.zip#sha256={'0' * 64}", r"a checkpoint's file ends in .*; got 'net\.zip'"),
    ],
)
def test_addresses_of_another_form(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_checkpoints([source])


@pytest.mark.parametrize(
    "source",
    [
        "http://me:s3cret@host/a.pth?token=s3cret",
        "https://me:s3cret@host/a.pth?token=s3cret",
        f"https://me:s3cret@host/a.pth?token={'s3cret' * 60}",
        f"https://me:s3cret@127.0.0.1:1/a.pth?token=s3cret#sha256={'0' * 64}",
    ],
)
def test_secrets_of_addresses_are_not_shown(source: str, tmp_path: Path) -> None:
    entry = Path(write_manifest(tmp_path, source, "0" * 64)).read_text()
    (tmp_path / "twice.toml").write_text(entry * 2)
    for given in (source, str(tmp_path / "sources.toml"), str(tmp_path / "twice.toml")):
        with pytest.raises((OSError, ValueError)) as raised:
            find_checkpoints([given])
        assert "s3cret" not in str(raised.value) and "host" in str(raised.value).replace("127.0.0.1:1", "host")


def write_manifest(folder: Path, place: str, sha256: str, more: str = "") -> str:
    path = folder / "sources.toml"
    path.write_text(f'[[source]]\nplace = "{place}"\nsha256 = "{sha256}"\n{more}')
    return str(path)


def test_a_manifest(tmp_path: Path) -> None:
    file = save(tmp_path / "zoo" / "net.safetensors", "a")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    more = 'license = "MIT"\nfamily = "nets"'
    (checkpoint,) = find_checkpoints([write_manifest(tmp_path, "zoo/net.safetensors", digest, more)])
    assert (checkpoint.name, checkpoint.family) == ("net.safetensors", "nets")
    assert checkpoint.origin and checkpoint.origin.recorded() == {
        "place": "net.safetensors",
        "sha256": digest,
        "license": "MIT",
        "family": "nets",
    }
    (alone,) = find_checkpoints([write_manifest(tmp_path, "zoo/net.safetensors", digest)])
    assert alone.family == alone.name
    with pytest.raises(
        ValueError, match=f"zoo/net.safetensors has SHA-256 {digest}, the manifest says 0+; get the file"
    ):
        find_checkpoints([write_manifest(tmp_path, "zoo/net.safetensors", "0" * 64)])
    said = f"there is no net.safetensors in {re.escape(str(tmp_path / 'data'))} or its folders; get it from the makers"
    elsewhere = [write_manifest(tmp_path, "net.safetensors", digest, 'attribution = "the makers"')]
    with pytest.raises(FileNotFoundError, match=said):
        find_checkpoints(elsewhere, tmp_path / "data")
    (found,) = find_checkpoints(elsewhere, tmp_path)
    assert (found.name, found.files) == ("net.safetensors", (file,))
    save(tmp_path / "zoo" / "other.safetensors", "a")
    with pytest.raises(ValueError, match="an entry of a manifest is one file; zoo has 2: write an entry for each"):
        find_checkpoints([write_manifest(tmp_path, "zoo", digest)])
