"""What the Hub holds: users, and repositories with their files and commits."""

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import yaml

from tests.localhub.answers import HubError

LARGE = re.compile(r"\.(safetensors|bin|pt|npz|npy|gz|zip|png|jpg)$")  # kept in LFS whatever their size
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)


@dataclass(frozen=True)
class User:
    """Who shows a token, the organisations they write for, and the token's role, ``"read"`` or ``"write"``."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"


def git_sha(data: bytes) -> str:
    """Names bytes as git does."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class File:
    """The bytes of a file, and whether git or LFS keeps them."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git keeps in place of a large file."""
        head = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return head.encode()

    @cached_property
    def git_sha(self) -> str:
        return git_sha(self.pointer if self.lfs else self.data)

    def entry(self, path: str) -> dict[str, Any]:
        """Describes the file in a listing of a tree."""
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": self.git_sha}
        return {**entry, "lfs": lfs} if self.lfs else entry

    def sibling(self, path: str, blobs: bool) -> dict[str, Any]:
        """Describes the file in the information on a model."""
        lfs = {"sha256": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        blob = {"size": len(self.data), "blobId": self.git_sha, **({"lfs": lfs} if self.lfs else {})}
        return {"rfilename": path, **(blob if blobs else {})}

    def parameters(self) -> dict[str, Any] | None:
        """Counts the values of a safetensors file by dtype; None where it is not one."""
        try:
            length = int.from_bytes(self.data[:8], "little")
            tensors = [t for name, t in json.loads(self.data[8 : 8 + length]).items() if name != "__metadata__"]
            counts: dict[str, int] = {}
            for tensor in tensors:
                start, end = tensor["data_offsets"]
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + (end - start) // DTYPE_BYTES[tensor["dtype"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return {"parameters": counts, "total": sum(counts.values())}


@dataclass(frozen=True)
class Commit:
    """All files as they stood after a commit."""

    tree: dict[str, File]
    parent: str | None
    title: str
    author: str
    date: str


class Repo:
    """A model's repository. Tests may set `private`, `gated`, `allowed` and `downloads`, and `commit` to it.

    Args:
        id: ``"user/name"``.
        lock: Held while a commit is made.
        private: Whether only its owner sees it.
    """

    def __init__(self, id: str, lock: threading.RLock, private: bool = False) -> None:
        self.id, self.lock, self.private = id, lock, private
        self.gated: bool | str = False
        self.allowed: set[str] = set()  # users let through the gate, besides the owners
        self.downloads = 0
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        self.lfs: dict[str, bytes] = {}  # by sha256: all that was uploaded, committed or not
        self.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, title="initial commit")

    def commit(
        self,
        files: dict[str, bytes],
        deleted: Iterable[str] = (),
        title: str = "commit",
        branch: str = "main",
        author: str = "dwp",
    ) -> str:
        """Adds a commit to a branch and returns its sha."""
        with self.lock:
            parent = self.branches.get(branch)
            tree = dict(self.commits[parent].tree) if parent else {}
            for path in deleted:
                if not (gone := [p for p in tree if p == path or p.startswith(path.rstrip("/") + "/")]):
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                tree = {p: file for p, file in tree.items() if p not in gone}
            tree |= {path: File(data, large(path, len(data))) for path, data in files.items()}
            self.lfs |= {file.sha256: file.data for file in tree.values() if file.lfs}
            date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            sha = secrets.token_hex(20)
            self.commits[sha] = Commit(tree, parent, title, author, date)
            self.branches[branch] = sha
            return sha

    def resolve(self, revision: str) -> str:
        """Finds the sha of a branch, a tag or a commit, which may be abbreviated."""
        sha = self.branches.get(revision) or self.tags.get(revision)
        if sha is None and re.fullmatch("[0-9a-f]{7,40}", revision):
            sha = next((sha for sha in self.commits if sha.startswith(revision)), None)
        if sha is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def tree(self, revision: str) -> dict[str, File]:
        return self.commits[self.resolve(revision)].tree

    def info(self, revision: str = "main", blobs: bool = False) -> dict[str, Any]:
        """Tells all that the Hub knows of the model at a revision."""
        sha = self.resolve(revision)
        tree = self.commits[sha].tree
        card = metadata(tree["README.md"].data.decode()) if "README.md" in tree else {}
        weights = next((file for path, file in tree.items() if path.endswith(".safetensors")), None)
        licence = f"license:{card['license']}" if "license" in card else None
        tags = [card.get("library_name"), weights and "safetensors", *(card.get("tags") or []), licence, "region:us"]
        info = {
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": sha,
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "createdAt": next(iter(self.commits.values())).date,
            "lastModified": self.commits[sha].date,
            "downloads": self.downloads,
            "likes": 0,
            "tags": [tag for tag in tags if tag],
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
            "cardData": card,
            "safetensors": weights and weights.parameters(),
            "usedStorage": sum(map(len, self.lfs.values())),
            "siblings": [file.sibling(path, blobs) for path, file in sorted(tree.items())],
        }
        return {key: value for key, value in info.items() if value is not None}


def large(path: str, size: int) -> bool:
    """Says whether LFS keeps a file."""
    return bool(LARGE.search(path)) or size > 10 * 2**20


def metadata(card: str) -> dict[str, Any]:
    """Reads the YAML at the head of a model card; empty where there is none, or where it is wrong."""
    with suppress(yaml.YAMLError):
        data = yaml.safe_load(block[1]) if (block := FRONT_MATTER.match(card)) else {}
        return data if isinstance(data, dict) else {}
    return {}
