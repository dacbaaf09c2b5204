"""One function per request, in the order of a publication followed by a download."""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote

import yaml

from tests.localhub.answers import Answer, HubError
from tests.localhub.calls import Call, route
from tests.localhub.repos import FRONT_MATTER, Repo, git_sha, large

IN_A_LIST = {"likes", "private", "downloads", "tags", "pipeline_tag", "library_name", "createdAt", "modelId"}


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
