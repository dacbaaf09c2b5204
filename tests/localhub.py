"""A Hub on the loopback interface, which drives the real ``huggingface_hub`` client in tests.

Read from top to bottom: what the Hub holds (`User`, `File`, `Repo`), what a request is (`Call`) and may be told
(`Answer`, `HubError`), one function per request in the order of a publication followed by a download, then the server
(`LocalHub`) and its faults. Only models, and only what a loader and a publisher ask for.

Two listeners, as the Hub sends whoever wants a large file to *another* origin, where the client shows no token:

    hub    http://127.0.0.1:<port>      the endpoint
    files  http://localhost:<port>      bodies of large files, up and down

The client has to be kept from Xet, by ``HF_HUB_DISABLE_XET=1`` before it is imported.
By hand: ``python tests/localhub.py``.
"""

import base64
import hashlib
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LARGE = re.compile(r"\.(safetensors|bin|pt|npz|npy|gz|zip|png|jpg)$")  # kept in LFS whatever their size
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)
IN_A_LIST = {"likes", "private", "downloads", "tags", "pipeline_tag", "library_name", "createdAt", "modelId"}


# What the Hub holds


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


# What is asked, and what may be told


@dataclass
class Answer:
    """What is sent back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})


class HubError(Exception):
    """A refusal, in the words and headers that the client looks for. A fault may raise it too."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None, **body: str
    ) -> None:
        super().__init__(message)
        headers = {**(headers or {}), "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = Answer.json({"error": message, **body}, status, headers)


@dataclass(frozen=True)
class Request:
    """A line of the log; `status` is 0 where the connection was closed without an answer."""

    host: str
    method: str
    path: str
    status: int
    token: str | None
    range: str | None


@dataclass(frozen=True)
class Call:
    """A request that is being answered."""

    hub: "LocalHub"
    host: str
    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str | None:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ") or None

    def user(self) -> User | None:
        """Finds who asks; None for whoever shows no token."""
        if self.token and self.token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(self.token or "")

    def repo(self, id: str, write: bool = False, content: bool = False) -> Repo:
        """Finds a repository that the user may see, write to, or read the files of."""
        user, repo = self.user(), self.hub.repos.get(id)
        owner = repo is not None and user is not None and repo.id.split("/")[0] in (user.name, *user.orgs)
        if repo is None or (repo.private and not owner) or (write and user is None):
            # Missing and hidden look the same. The Hub sends a bare 401, which the client only understands over https.
            message = "Repository not found" if user else "Invalid username or password."
            raise HubError(404 if user else 401, message, "RepoNotFound")
        if write and not (owner and user.role == "write"):
            raise HubError(403, "You don't have the rights to write to this repository")
        if content and repo.gated and not owner and (user is None or user.name not in repo.allowed):
            raise HubError(403 if user else 401, f"Access to model {id} is restricted", "GatedRepo")
        return repo

    def blob(self, data: bytes, headers: dict[str, str]) -> Answer:
        """Answers with a file, or with the range of it that was asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"] or "")
        if not asked or not any(asked.groups()):
            return Answer(data, 200, headers)
        size = len(data)
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(size, int(asked[2]) + 1 if asked[1] and asked[2] else size)
        if start >= end:
            return Answer(b"", 416, {"Content-Range": f"bytes */{size}"})
        return Answer(data[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def answer(self) -> Answer:
        """Finds the function for the request and asks it."""
        verb = "GET" if self.method == "HEAD" else self.method
        for host, method, pattern, function in ROUTES:
            if (host, method) == (self.host, verb) and (match := pattern.fullmatch(urlsplit(self.path).path)):
                found = function(self, **{key: unquote(value) for key, value in match.groupdict().items()})
                return found if isinstance(found, Answer) else Answer.json(found)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")


# Request by request


ROUTES: list[tuple[str, str, re.Pattern[str], Callable[..., Any]]] = []
PARTS = {
    "{id}": "(?P<id>[^/]+(?:/[^/]+)?)",
    "{rev}": "(?P<rev>[^/]+)",
    "{path}": "(?P<path>.+)",
    "{oid}": "(?P<oid>.+)",
}


def route(method: str, template: str, host: str = "hub") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Has a function answer the requests that fit a template; what it returns is sent as JSON."""
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, part in PARTS.items():
        pattern = pattern.replace(name, part)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((host, method, re.compile(pattern), function))
        return function

    return register


@route("GET", "/api/agent-harnesses")
def agent_harnesses(call: Call) -> dict[str, Any]:
    """Is asked by clients from about 1.20 on, once a day, for their user agent."""
    return {}


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> dict[str, Any]:
    if (user := call.user()) is None:
        raise HubError(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": org, "roleInOrg": user.role} for org in user.orgs]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
    return {"type": "user", "id": user.name, "name": user.name, "fullname": user.name, "orgs": orgs, "auth": token}


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Answer:
    """Checks a model card, before any upload that holds one."""
    block = FRONT_MATTER.match(call.json["content"])
    try:
        card = yaml.safe_load(block[1]) if block else {}
        types = (
            {"tags": list, "license": str, "library_name": str, "model-index": list} if isinstance(card, dict) else {}
        )
        wrong = [key for key, kind in types.items() if key in card and not isinstance(card[key], kind)]
        errors = [f'"{key}" must be a {types[key].__name__}' for key in wrong] if types else ["not a mapping"]
    except yaml.YAMLError as error:
        card, errors = None, [f"invalid YAML: {error}"]
    warnings = [] if card or errors else ["empty or missing yaml metadata in repo card"]
    found = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
    return Answer.json(found, 400 if errors else 200)


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> dict[str, Any]:
    if (user := call.user()) is None:
        raise HubError(401, "Invalid username or password.")
    owner = call.json.get("organization") or user.name
    if (call.json.get("type") or "model") != "model":
        raise HubError(400, "this local Hub holds models only")
    if user.role != "write" or owner not in (user.name, *user.orgs):
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    id = f"{owner}/{call.json['name']}"
    url = f"{call.hub.endpoint}/{id}"
    if id in call.hub.repos:
        raise HubError(409, "You already created this model repo", url=url)
    private = call.json.get("private") or call.json.get("visibility") == "private"  # clients of 1.x, and later ones
    call.hub.repos[id] = Repo(id, call.hub.lock, bool(private))
    return {"url": url, "name": id, "id": id}


@route("POST", "/api/models/{id}/preupload/{rev}")
def preupload(call: Call, id: str, rev: str) -> dict[str, Any]:
    """Says of each file how to send it, and what it was, so that the client leaves out what has not changed."""
    tree = call.repo(id, write=True).tree(rev)

    def plan(path: str, size: int) -> dict[str, Any]:
        mode = {"path": path, "uploadMode": "lfs" if large(path, size) else "regular", "shouldIgnore": False}
        old = tree.get(path)
        return {**mode, "oid": old.sha256 if old.lfs else old.git_sha} if old else mode

    return {"files": [plan(file["path"], file["size"]) for file in call.json["files"]]}


@route("POST", "/{id}.git/info/lfs/objects/batch")
def lfs_batch(call: Call, id: str) -> dict[str, Any]:
    """Says of each large file where to put it; nowhere if it is there."""
    repo = call.repo(id, write=True)

    def plan(oid: str, size: int) -> dict[str, Any]:
        upload = {"upload": {"href": f"{call.hub.files}/{id}/{oid}", "header": {}}}
        return {"oid": oid, "size": size} | ({} if oid in repo.lfs else {"actions": upload})

    return {"transfer": "basic", "objects": [plan(o["oid"], o["size"]) for o in call.json["objects"]]}


@route("PUT", "/{id}/{oid}", host="files")
def put_blob(call: Call, id: str, oid: str) -> Answer:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise HubError(400, "the body does not have the sha256 it was announced with")
    call.hub.repos[id].lfs[oid] = call.body
    return Answer(headers={"ETag": f'"{oid}"'})


@route("POST", "/api/models/{id}/commit/{rev}")
def commit(call: Call, id: str, rev: str) -> dict[str, Any]:
    """Makes a commit of a list of operations: all of them, or none."""
    repo, user = call.repo(id, write=True), call.user()
    if "create_pr" in call.query or rev not in repo.branches:
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    operations = [json.loads(line) for line in call.body.splitlines() if line]
    head = next(operation["value"] for operation in operations if operation["key"] == "header")
    files: dict[str, bytes] = {}
    deleted: list[str] = []
    if not repo.branches[rev].startswith(head.get("parentCommit") or ""):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    for key, value in ((operation["key"], operation["value"]) for operation in operations):
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile" and value["oid"] not in repo.lfs:
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
        elif key == "lfsFile":
            files[value["path"]] = repo.lfs[value["oid"]]
        elif key != "header":  # deletedFile, deletedFolder
            deleted.append(value["path"])
    sha = repo.commit(files, deleted, head["summary"], rev, user.name)
    return {"success": True, "commitOid": sha, "commitUrl": f"{call.hub.endpoint}/{id}/commit/{sha}", "hookOutput": ""}


@route("POST", "/api/models/{id}/tag/{rev}")
def create_tag(call: Call, id: str, rev: str) -> dict[str, Any]:
    repo, tag = call.repo(id, write=True), call.json["tag"]
    if tag in repo.tags:
        raise HubError(409, f"Tag {tag} already exists")
    repo.tags[tag] = repo.resolve(rev)
    return {}


@route("DELETE", "/api/models/{id}/tag/{rev}")
def delete_tag(call: Call, id: str, rev: str) -> dict[str, Any]:
    if call.repo(id, write=True).tags.pop(rev, None) is None:
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    return {}


@route("GET", "/api/models/{id}/refs")
def refs(call: Call, id: str) -> dict[str, Any]:
    def describe(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in refs.items()]

    repo = call.repo(id)
    return {"branches": describe("heads", repo.branches), "tags": describe("tags", repo.tags), "converts": []}


@route("GET", "/api/models/{id}/commits/{rev}")
def commits(call: Call, id: str, rev: str) -> list[dict[str, Any]]:
    repo, found = call.repo(id), []
    sha: str | None = repo.resolve(rev)
    while sha:
        one = repo.commits[sha]
        authors = [{"user": one.author}]
        found.append({"id": sha, "title": one.title, "message": "", "date": one.date, "authors": authors})
        sha = one.parent
    return found


@route("GET", "/api/models/{id}/tree/{rev}")
def tree(call: Call, id: str, rev: str, path: str = "") -> list[dict[str, Any]]:
    """Lists files and folders below a folder; only the next level, unless all are asked for."""
    files, prefix = call.repo(id).tree(rev), f"{path}/" if path else ""
    below = [p for p in sorted(files) if p.startswith(prefix)]
    if path and not below:
        raise HubError(404, f"{path} does not exist on {rev}", "EntryNotFound")
    folders = sorted({p[:i] for p in below for i, c in enumerate(p) if c == "/" and i >= len(prefix)})
    entries = [{"type": "directory", "path": p, "oid": git_sha(p.encode()), "size": 0} for p in folders]
    entries += [files[p].entry(p) for p in below]
    deep = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    return [entry for entry in entries if deep or "/" not in entry["path"][len(prefix) :]]


route("GET", "/api/models/{id}/tree/{rev}/{path}")(tree)


@route("POST", "/api/models/{id}/paths-info/{rev}")
def paths_info(call: Call, id: str, rev: str) -> list[dict[str, Any]]:
    files, as_json = call.repo(id).tree(rev), "json" in call.headers["Content-Type"]
    paths = call.json["paths"] if as_json else parse_qs(call.body.decode()).get("paths", [])
    return [files[path].entry(path) for path in paths if path in files]


def expanded(call: Call, info: dict[str, Any], usual: Iterable[str]) -> dict[str, Any]:
    """Keeps the properties that ``?expand=`` asks for, or the usual ones."""
    asked = call.query.get("expand", [])
    if unknown := sorted({*asked} - {*info, "library_name", "pipeline_tag", "safetensors"}):
        raise HubError(400, f"this local Hub cannot expand {', '.join(unknown)}")
    return {key: value for key, value in info.items() if key in ("id", *(asked or usual))}


@route("GET", "/api/models")
def list_models(call: Call) -> list[dict[str, Any]]:
    """Lists the models that the user may see: few properties, unless ``full`` or ``expand`` asks for more."""
    query, user = call.query, call.user()
    own = (user.name, *user.orgs) if user else ()
    wanted = {tag for tags in query.get("filter", []) for tag in tags.split(",")}
    author, search = query.get("author", [""])[0], query.get("search", [""])[0].lower()
    more = {"sha", "lastModified", "author", "gated", "siblings"} if "full" in query else set()
    usual = IN_A_LIST | more | ({"cardData"} if "cardData" in query else set())
    infos = [repo.info() for repo in call.hub.repos.values() if not repo.private or repo.id.split("/")[0] in own]
    found = [info for info in infos if wanted <= {*info["tags"]} and author in ("", info["author"])]
    return [expanded(call, info, usual) for info in found if search in info["id"].lower()]


@route("GET", "/api/models/{id}/revision/{rev}")
def model_info(call: Call, id: str, rev: str = "main") -> dict[str, Any]:
    info = call.repo(id).info(rev, blobs="blobs" in call.query)
    return expanded(call, info, info)


route("GET", "/api/models/{id}")(model_info)


@route("GET", "/{id}/resolve/{rev}/{path}")
def resolve(call: Call, id: str, rev: str, path: str) -> Answer:
    """Sends a small file, or says where a large one is."""
    repo = call.repo(id, content=True)
    commit = {"X-Repo-Commit": repo.resolve(rev)}
    file = repo.tree(rev).get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", commit)
    if not file.lfs:
        return call.blob(file.data, {**commit, "ETag": f'"{file.git_sha}"'})
    linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
    there = f"{call.hub.files}/{id}/{file.sha256}?filename={quote(path)}"
    return Answer(b"", 302, {**commit, **linked, "Location": there})


@route("GET", "/{id}/{oid}", host="files")
def get_blob(call: Call, id: str, oid: str) -> Answer:
    repo = call.hub.repos.get(id)
    if repo is None or oid not in repo.lfs:
        raise HubError(404, "no such file")
    return call.blob(repo.lfs[oid], {"ETag": f'"{oid}"'})


# The server, and what may go wrong with it


Action = int | float | str | Callable[[Call], Any]


@dataclass
class Fault:
    """What goes wrong with the next requests that fit a pattern."""

    pattern: re.Pattern[str]
    action: Action
    times: int


class LocalHub:
    """A running Hub; stops at the end of a ``with`` block, or by `stop`.

    Attributes:
        endpoint: The Hub's origin, for ``endpoint=`` or ``HF_ENDPOINT``.
        files: The origin of large files.
        tokens: Who shows which token; change at will.
        repos: ``"user/name"`` to its `Repo`; change at will.
        log: Every request of which the answer has been decided, in that order.
        faults: What `fail` has announced and no request has met yet.
    """

    def __init__(self) -> None:
        self.tokens = {
            "hf_write": User("dwp", ("dwp-init",)),
            "hf_read": User("reader", role="read"),
            "hf_other": User("other"),
        }
        self.repos: dict[str, Repo] = {}
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()  # held while an answer is made, never while it is sent or waited for
        self.stopped = threading.Event()
        self.listeners = [Listener(self, "hub"), Listener(self, "files")]
        self.endpoint = f"http://127.0.0.1:{self.listeners[0].server_port}"
        self.files = f"http://localhost:{self.listeners[1].server_port}"
        for listener in self.listeners:
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "LocalHub":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the listeners and the connections that clients keep open, so that these find nobody there."""
        if not self.stopped.is_set():
            self.stopped.set()
            for listener in self.listeners:
                listener.stop()

    def add_repo(
        self, id: str, files: dict[str, bytes] | None = None, tag: str | None = None, private: bool = False
    ) -> str:
        """Adds a repository without a request, and returns the sha of its commit.

        Args:
            id: ``"user/name"``, not taken yet; for one more commit there is `Repo.commit`.
            files: What its one commit holds, besides .gitattributes.
            tag: Set on that commit.
            private: Whether only its owner sees it.

        Raises:
            ValueError: If there is such a repository.
        """
        with self.lock:
            if id in self.repos:
                raise ValueError(f"there is a repository {id!r}; `hub.repos[{id!r}].commit(files)` adds to it")
            repo = self.repos[id] = Repo(id, self.lock, private)
            sha = repo.commit(files, title="files") if files else repo.branches["main"]
            repo.tags |= {tag: sha} if tag else {}
            return sha

    def requests(self) -> list[Request]:
        """Returns the log without what the client asks once a day for its user agent."""
        with self.lock:
            return [request for request in self.log if request.path != "/api/agent-harnesses"]

    def clear(self) -> None:
        """Empties the log."""
        with self.lock:
            self.log.clear()

    def fail(self, pattern: str, action: Action, times: int = 1) -> None:
        """Has the next requests that fit a pattern go wrong; the oldest fault that fits a request is the one it meets.

        Args:
            pattern: A regular expression, searched in ``"METHOD hub|files /path?query"``.
            action: An integer is a status to answer without doing what was asked; a float, seconds to wait before it is
                done; ``"drop"`` closes the connection, nothing done and nothing answered; ``"flip"`` answers with one
                byte of the body wrong; ``"cut"`` does what was asked and closes half-way through the body;
                ``"trickle"`` stops there, and keeps the connection until the client or the Hub has gone. Where there is
                no body (HEAD, PUT), the last two stop before the headers.
                A callable is given the `Call` before anything is done, with no lock held. It may change the Hub (push a
                commit, add a tag, stop it), wait, raise `HubError` to refuse, or return one of the actions above; None
                goes on.
            times: How many requests it meets; each request meets one fault at most.

        Raises:
            ValueError: If there is no such action.
        """
        status = isinstance(action, int) and 400 <= action <= 599
        if not (
            status or isinstance(action, float) or callable(action) or action in ("drop", "cut", "flip", "trickle")
        ):
            raise ValueError(
                f"no action {action!r}: an error status, seconds as a float, a callable, or the name of one"
            )
        with self.lock:
            self.faults.append(Fault(re.compile(pattern), action, times))

    def meet(self, line: str) -> Action | None:
        """Takes the fault that a request meets, if any."""
        with self.lock:
            fault = next((fault for fault in self.faults if fault.pattern.search(line)), None)
            if fault is None:
                return None
            fault.times -= 1
            self.faults = [fault for fault in self.faults if fault.times > 0]
            return fault.action


class Listener(ThreadingHTTPServer):
    """One of the two origins, with the connections it holds."""

    request_queue_size = 128  # the usual 5 make clients that come at once wait for a second

    def __init__(self, hub: LocalHub, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.host = hub, host
        self.connections: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints what went wrong here, and not that a client has gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stops listening, ends the connections and waits for their threads to close them."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 0.5  # in vain if a fault, in one of these threads, stops the Hub
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.002)


class Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection, meets faults, and writes answers."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: else 40 ms an answer

    def log_message(self, *_: object) -> None:
        """Prints nothing; there is `LocalHub.log`."""

    def serve(self) -> None:
        hub, host = self.server.hub, self.server.host
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))  # before any answer, or the client is cut off
        call = Call(hub, host, self.command, self.path, self.headers, body)
        action: Any = None
        try:
            action = hub.meet(f"{self.command} {host} {self.path}")
            if callable(action):
                action = action(call)
            if isinstance(action, float):
                hub.stopped.wait(action)
            if hub.stopped.is_set():
                action = "drop"
            if isinstance(action, int):
                raise HubError(action, "injected fault")
            with hub.lock:
                answer = None if action == "drop" else call.answer()
        except HubError as error:
            answer = error.answer
        status = answer.status if answer else 0
        with hub.lock:
            hub.log.append(Request(host, self.command, self.path, status, call.token, self.headers["Range"]))
        self.send(answer or Answer(), action)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def send(self, answer: Answer, action: Any) -> None:
        body, half = b"" if self.command == "HEAD" else answer.body, action in ("drop", "cut", "trickle")
        middle = len(body) // 2
        if action == "flip" and body:
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if middle or not half:
            self.send_response(answer.status)
            for key, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:middle] if half else body)
        if action == "trickle":
            self.rfile.read(1)  # returns once the client or the Hub has gone
        self.close_connection |= half


if __name__ == "__main__":
    with LocalHub() as hub:
        print(
            f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN=hf_write HF_HUB_DISABLE_XET=1 HF_HOME=$(mktemp -d)", flush=True
        )
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
