import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RevisionNotFoundError,
)
from safetensors.torch import save

from tests.localhub import Call, HubError, LocalHub

CARD = b"---\nlicense: mit\nlibrary_name: dwp_init\ntags:\n- dwp-prior\n---\n# A prior\n"
WEIGHTS = save({"loc": torch.zeros(9), "scale": torch.ones(9, 9), "step": torch.tensor(3)})
FILES = {"config.json": b'{"format_version": 1}', "model.safetensors": WEIGHTS, "README.md": CARD}
ID = "dwp-init/notmnist-7x7"

# The client (1.2.4 to 2.4.0) hands a file to httpx in a way that httpx warns of, in every upload of a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    with LocalHub() as hub:
        # As HF_ENDPOINT would: 1.2.4 reads the address of a commit by it, whatever `endpoint=` it was given.
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def client(hub: LocalHub, token: str | bool = "hf_write") -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def additions(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, data) for path, data in files.items()]


def download(hub: LocalHub, cache: Path, path: str = "config.json", **arguments: object) -> Path:
    """Downloads a file of the usual repository, without a token unless one is given."""
    arguments = {"token": False, **arguments}
    return Path(hf_hub_download(ID, path, endpoint=hub.endpoint, cache_dir=cache, **arguments))


def ask(origin: str, method: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """Sends one request by hand; the body has been read into ``response.text``."""
    connection = http.client.HTTPConnection(origin.removeprefix("http://"), timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        response.text = response.read()
        return response
    finally:
        connection.close()


def lines(hub: LocalHub) -> list[str]:
    return [f"{r.method} {r.host} {r.path.split('?')[0]} {r.status}" for r in hub.requests()]


def test_publication(hub):
    api = client(hub)
    assert api.whoami()["name"] == "dwp"
    api.create_repo(ID)
    api.create_repo(ID, exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo(ID)
    head = api.model_info(ID).sha
    hub.clear()
    oid = api.create_commit(ID, additions(FILES), commit_message="Publish", parent_commit=head).oid
    sha256 = api.model_info(ID, files_metadata=True).siblings[-1].lfs.sha256
    assert lines(hub) == [
        "POST hub /api/validate-yaml 200",
        f"POST hub /api/models/{ID}/preupload/main 200",
        f"POST hub /{ID}.git/info/lfs/objects/batch 200",
        f"PUT files /{ID}/{sha256} 200",
        f"POST hub /api/models/{ID}/commit/main 200",
        f"GET hub /api/models/{ID} 200",
    ]
    assert {r.token for r in hub.log if r.host == "hub"} == {"hf_write"}
    assert {r.token for r in hub.log if r.host == "files"} == {None}
    assert hub.repos[ID].branches == {"main": oid}
    assert {path: file.data for path, file in hub.repos[ID].tree("main").items() if path in FILES} == FILES

    api.create_tag(ID, tag="v1.0", revision=oid)
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_tag(ID, tag="v1.0")
    refs = api.list_repo_refs(ID)
    assert [(ref.name, ref.target_commit) for ref in refs.branches + refs.tags] == [("main", oid), ("v1.0", oid)]
    api.delete_tag(ID, tag="v1.0")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(ID, tag="v1.0")


def test_unchanged_files_are_not_sent_again(hub):
    api = client(hub)
    hub.add_repo(ID, FILES)
    commits = [*hub.repos[ID].commits]
    api.create_commit(ID, additions(FILES), commit_message="Again")
    assert [*hub.repos[ID].commits] == commits
    assert not [r for r in hub.requests() if r.method == "PUT"]


def test_commits(hub):
    api = client(hub)
    first = hub.add_repo(ID, FILES)
    second = hub.repos[ID].commit({"figures/loss.png": b"png"}, title="Figures")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(ID, additions({"a.txt": b"a"}), commit_message="stale", parent_commit=first)
    assert error.value.response.status_code == 412
    third = api.create_commit(
        ID,
        [CommitOperationDelete("figures/", is_folder=True), CommitOperationDelete("README.md")],
        commit_message="Less",
        parent_commit=second[:7],
    ).oid
    assert [(c.commit_id, c.title) for c in api.list_repo_commits(ID)][:3] == [
        *[(third, "Less"), (second, "Figures"), (first, "files")]
    ]
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.create_commit(ID, [CommitOperationDelete("absent")], commit_message="Less")
    with pytest.raises(ValueError, match="tags"):
        api.create_commit(ID, additions({"README.md": b"---\ntags: one\n---\n"}), commit_message="Card")
    assert all(len(sha) == 40 and int(sha, 16) for sha in hub.repos[ID].commits)


def test_commit_of_an_unknown_object_is_refused(hub):
    hub.add_repo(ID, FILES)
    head = hub.repos[ID].branches["main"]
    body = [{"key": "header", "value": {"summary": "x"}}]
    body += [{"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}]
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=5)
    headers = {"Authorization": "Bearer hf_write", "Content-Type": "application/x-ndjson"}
    connection.request("POST", f"/api/models/{ID}/commit/main", "\n".join(map(json.dumps, body)), headers)
    response = connection.getresponse()
    assert response.status == 400
    assert b"LFS pointer" in response.read()
    connection.close()
    assert hub.repos[ID].branches["main"] == head


def test_information(hub):
    api = client(hub, token=False)
    sha = hub.add_repo(ID, FILES, tag="v1.0")
    hub.repos[ID].downloads = 7
    hub.repos[ID].commit({"sub/folder/a.txt": b"a", "sub/b.txt": b"b"})
    info = api.model_info(ID, revision="v1.0", files_metadata=True)
    assert (info.sha, info.library_name, info.card_data.license) == (sha, "dwp_init", "mit")
    assert {"dwp_init", "dwp-prior", "license:mit"} <= {*info.tags}
    sizes = {file.rfilename: file.size for file in info.siblings}
    assert sizes.items() >= {path: len(data) for path, data in FILES.items()}.items()
    some = api.model_info(ID, expand=["downloads", "lastModified", "usedStorage", "safetensors"])
    assert (some.downloads, some.sha) == (7, None)
    assert vars(some).get("used_storage", vars(some).get("usedStorage")) == len(WEIGHTS)  # not an attribute in 1.2.4
    assert (some.safetensors.parameters, some.safetensors.total) == ({"F32": 90, "I64": 1}, 91)
    assert some.last_modified.year >= 2025
    with pytest.raises(BadRequestError, match="cannot expand gguf"):
        api.model_info(ID, expand=["gguf"])

    assert [entry.path for entry in api.list_repo_tree(ID, "sub")] == ["sub/folder", "sub/b.txt"]
    assert {*api.list_repo_files(ID)} == {*FILES, ".gitattributes", "sub/folder/a.txt", "sub/b.txt"}
    assert [p.size for p in api.get_paths_info(ID, ["config.json", "absent"])] == [len(FILES["config.json"])]
    assert api.file_exists(ID, "config.json")
    assert not api.file_exists(ID, "absent")
    assert api.repo_exists(ID)
    assert not api.repo_exists("dwp-init/absent")
    assert api.revision_exists(ID, "v1.0")
    assert not api.revision_exists(ID, "v2.0")


def test_list_of_models(hub):
    hub.add_repo(ID, FILES)
    hub.add_repo("other/plain", {"config.json": b"{}", "model.safetensors": b"not safetensors"})
    hub.add_repo("other/hidden", FILES, private=True)

    def ids(token: str | bool = False, **arguments: object) -> list[str]:
        return [model.id for model in client(hub, token).list_models(**arguments)]

    assert ids() == [ID, "other/plain"]
    assert ids(filter="dwp-prior") == ids(filter=["dwp-prior", "dwp_init"]) == ids(author="dwp-init") == [ID]
    assert ids(search="NotMNIST") == [ID]
    assert ids(filter=["dwp-prior", "absent"]) == []
    assert ids("hf_other", filter="dwp-prior") == [ID, "other/hidden"]
    (model,) = client(hub).list_models(filter="dwp-prior")
    assert (model.sha, model.last_modified, model.downloads) == (None, None, 0)
    (model,) = client(hub).list_models(filter="dwp-prior", expand=["lastModified", "safetensors", "cardData"])
    assert (model.safetensors.total, model.card_data.license, model.downloads) == (91, "mit", None)


def test_who_may_write(hub):
    hub.add_repo(ID, FILES)
    for token, status in {"hf_read": 403, "hf_other": 403, "hf_expired": 401}.items():
        with pytest.raises(HfHubHTTPError) as error:
            client(hub, token).create_tag(ID, tag="v1.0")
        assert error.value.response.status_code == status
        with pytest.raises(HfHubHTTPError) as error:
            client(hub, token).create_repo("dwp-init/new")
        assert error.value.response.status_code == status
    assert client(hub).create_repo("dwp-init/new", private=True).repo_id == "dwp-init/new"
    assert hub.repos["dwp-init/new"].private


@pytest.mark.parametrize(
    ("path", "headers", "status", "found"),
    [
        (f"/{ID}/resolve/main/absent", {}, 404, {"X-Error-Code": "EntryNotFound"}),
        (f"/{ID}/resolve/v2/config.json", {}, 404, {"X-Error-Code": "RevisionNotFound", "X-Repo-Commit": None}),
        ("/other/absent/resolve/main/a", {}, 401, {"X-Error-Code": "RepoNotFound"}),
        ("/gpt2/resolve/main/a", {"Authorization": "Bearer hf_read"}, 404, {"X-Error-Code": "RepoNotFound"}),
        (f"/api/models/{ID}", {"Authorization": "Bearer old"}, 401, {"X-Error-Code": None}),
        ("/api/whoami-v2", {}, 401, {"X-Error-Message": "Invalid username or password."}),
        (f"/{ID}/resolve/main/config.json", {"Range": "bytes=2-5"}, 206, {"Content-Range": "bytes 2-5/21"}),
        (f"/{ID}/resolve/main/config.json", {"Range": "bytes=-1"}, 206, {"Content-Range": "bytes 20-20/21"}),
        (f"/{ID}/resolve/main/config.json", {"Range": "bytes=21-"}, 416, {"Content-Range": "bytes */21"}),
        ("/api/agent-harnesses", {}, 200, {"Content-Length": "2"}),
        ("/elsewhere", {}, 404, {"X-Error-Code": None}),
    ],
)
def test_statuses_and_headers(hub, path, headers, status, found):
    hub.add_repo(ID, FILES)
    response = ask(hub.endpoint, "GET", path, headers)
    assert response.status == status
    assert {key: response.headers[key] for key in found} == found
    assert hub.log[-1].range == headers.get("Range")


def test_large_files_are_on_another_origin(hub):
    sha = hub.add_repo(ID, FILES)
    response = ask(hub.endpoint, "HEAD", f"/{ID}/resolve/main/model.safetensors")
    sha256 = hub.repos[ID].tree(sha)["model.safetensors"].sha256
    assert (response.status, response.headers["X-Repo-Commit"]) == (302, sha)
    assert response.headers["X-Linked-Etag"] == f'"{sha256}"'
    assert response.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert response.headers["Location"].startswith(hub.files)
    path = response.headers["Location"].removeprefix(hub.files)
    assert ask(hub.files, "GET", path).text == WEIGHTS
    assert ask(hub.files, "GET", path, {"Range": "bytes=8-"}).text == WEIGHTS[8:]


def test_trickle_lasts_until_the_hub_stops(hub):
    hub.add_repo(ID, FILES)
    hub.fail("config", "trickle")
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=5)
    connection.request("GET", f"/{ID}/resolve/main/config.json")
    response = connection.getresponse()
    assert response.read(10) == FILES["config.json"][:10]
    threading.Timer(0.1, hub.stop).start()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_someone_else_is_faster(hub):
    sha = hub.add_repo(ID, FILES)
    hub.fail("POST hub .*/commit/", lambda call: hub.repos[ID].commit({"theirs.txt": b""}) and None)
    with pytest.raises(HfHubHTTPError) as error:
        client(hub).create_commit(ID, additions({"a.txt": b"a"}), commit_message="ours", parent_commit=sha)
    assert error.value.response.status_code == 412

    def refuse(call: Call) -> None:
        hub.repos[ID].tags[call.json["tag"]] = sha
        raise HubError(409, "too late")

    hub.fail("POST hub .*/tag/", refuse)
    with pytest.raises(HfHubHTTPError, match="too late"):
        client(hub).create_tag(ID, tag="v1.0")
    hub.fail("POST hub .*/tag/", lambda call: "drop")
    with pytest.raises(Exception, match="disconnected"):
        client(hub).create_tag(ID, tag="v2.0")
    assert hub.repos[ID].tags == {"v1.0": sha}
    hub.fail("POST hub .*/tag/", "cut")  # done, and half of the answer is lost
    with pytest.raises(Exception, match="peer closed"):
        client(hub).create_tag(ID, tag="v3.0")
    assert "v3.0" in hub.repos[ID].tags


def test_parallel_requests_meet_each_fault_once(hub):
    hub.add_repo(ID, FILES)
    hub.fail("config", 503, times=3)
    hub.fail("config", 0.2, times=8)
    with ThreadPoolExecutor(16) as pool:
        statuses = [*pool.map(lambda _: ask(hub.endpoint, "GET", f"/{ID}/resolve/main/config.json").status, range(16))]
    assert sorted(statuses) == [200] * 13 + [503] * 3
    assert len(hub.log) == 16
    assert hub.faults == []


def test_the_hub_dies_before_a_commit(hub):
    sha = hub.add_repo(ID, FILES)
    hub.fail("POST hub .*/commit/", lambda call: hub.stop())
    with pytest.raises(Exception, match="disconnected"):
        client(hub).create_commit(ID, additions({"a.txt": b"a"}), commit_message="lost")
    assert hub.repos[ID].branches == {"main": sha}


def test_helpful_errors(hub):
    hub.add_repo(ID, FILES)
    with pytest.raises(ValueError, match=r"there is a repository 'dwp-init/notmnist-7x7'; `hub.repos"):
        hub.add_repo(ID, FILES)
    for action in (2, "explode", None, 200):
        with pytest.raises(ValueError, match="no action"):
            hub.fail("GET", action)
