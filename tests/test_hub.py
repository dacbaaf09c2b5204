"""Priors from the Hub, by the real client against a Hub on the loopback interface: addresses, requests, faults."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import dwp_init
from dwp_init import PriorCorruptError, PriorDownloadError, PriorNotFoundError, load_prior, registry
from dwp_init.access import Access
from dwp_init.folder import CONFIG, MODEL, read_files
from tests.localhub import LocalHub
from tests.models import REPO, changed_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def entry(files: dict[str, bytes], commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """A registry with one name, pinned to the published commit and not bundled."""
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    entry = {"kernel_shape": [1, 3, 3], "family": "gaussian", "sha256": sha256, "repo": REPO, "revision": commit}
    (tmp_path / "registry.json").write_text(json.dumps({"gauss": entry}))
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.json")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "bundled")
    registry.registry.cache_clear()
    yield entry
    registry.registry.cache_clear()


def draws(prior: dwp_init.Prior) -> torch.Tensor:
    return prior.sample(5, torch.Generator().manual_seed(0))


def same(one: dwp_init.Prior, other: dwp_init.Prior) -> bool:
    return torch.equal(draws(one), draws(other))


def environment(hub: LocalHub, cache: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), "PYTHONPATH": _python_path(), **more}


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


# Addresses


@pytest.mark.parametrize("address", [REPO, f"{REPO}@v1", f"{REPO}@main", "commit"])
def test_a_repository_is_loaded_as_its_folder_is(load: Callable, commit: str, tmp_path: Path, address: str) -> None:
    prior = load(f"{REPO}@{commit}" if address == "commit" else address)
    assert same(prior, load_prior(tmp_path / "gauss-3x3"))
    assert prior.details == {"name": "gauss-3x3", "license": "MIT"} and not prior.training


def test_a_prior_without_a_name_takes_that_of_its_repository(
    load: Callable, hub: LocalHub, gaussian: Callable, tmp_path: Path
) -> None:
    hub.add_repo("u.s-e_r/p", read_files(dwp_init.save_prior(gaussian(3), tmp_path / "bare")))
    assert load("u.s-e_r/p").details["name"] == "u.s-e_r/p"


def test_revision_as_an_argument(load: Callable, hub: LocalHub, commit: str, files: dict, gaussian: Callable) -> None:
    hub.repos[REPO].commit({CONFIG: changed_config(files[CONFIG], license="other")})
    assert load(REPO).details["license"] == "other"
    assert load(REPO, revision="v1").details["license"] == "MIT"
    assert load(REPO, revision=commit).details["license"] == "MIT"
    with pytest.raises(ValueError, match="has a revision, but revision='v1' is given too; drop one"):
        load(revision="v1")
    with pytest.raises(ValueError, match="lacks a revision; write for example dwp-init/gauss-3x3@v1"):
        load(f"{REPO}@")
    with pytest.raises(TypeError, match="revision must be a str, such as 'v1'; got 3"):
        load(REPO, revision=3)


def test_a_folder_has_no_revision(load: Callable, files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is a folder, which has no revisions; drop revision='v1'"):
        load(tmp_path / "gauss-3x3", revision="v1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dwp-init").mkdir()
    (tmp_path / "gauss-3x3").rename(tmp_path / REPO)
    assert load(REPO).details["name"] == "gauss-3x3"  # a folder wins over a repository
    with pytest.raises(ValueError, match="no folder is called 'a/b@v1'; for a repository on the Hub pass the str"):
        load(Path("a/b@v1"))


def test_both_files_are_of_one_commit(
    load: Callable, hub: LocalHub, commit: str, files: dict, gaussian: Callable
) -> None:
    """The branch moves between the two downloads."""
    hub.fail("HEAD hub .*model", lambda call: hub.repos[REPO].commit({MODEL: b"of another commit"}) and None)
    load(REPO)
    assert {r.path.split("/")[4] for r in hub.requests() if MODEL in r.path and r.host == "hub"} == {commit}


def test_a_registered_name_is_its_pin(load: Callable, entry: dict, hub: LocalHub, files: dict, tmp_path: Path) -> None:
    hub.repos[REPO].commit({CONFIG: changed_config(files[CONFIG], license="other")})
    assert load("gauss").details["license"] == "MIT"
    assert load("gauss", revision=entry["revision"]).details["license"] == "MIT"
    assert load("gauss@main").details["license"] == load("gauss", revision="main").details["license"] == "other"
    assert dwp_init.list_priors() == ["gauss"]


def test_a_bundled_copy_is_taken_where_it_is_what_the_pin_says(
    load: Callable, entry: dict, hub: LocalHub, tmp_path: Path
) -> None:
    (tmp_path / "bundled").mkdir()
    (tmp_path / "gauss-3x3").rename(tmp_path / "bundled" / "gauss")
    load("gauss", local_files_only=True)
    assert hub.requests() == []
    config = tmp_path / "bundled" / "gauss" / CONFIG
    config.write_bytes(config.read_bytes() + b" ")
    with pytest.raises(PriorDownloadError, match="is not in the cache, and local_files_only or HF_HUB_OFFLINE is set"):
        load("gauss", local_files_only=True)
    load("gauss")
    hub.clear()
    load("gauss")
    assert hub.requests() == []


def test_a_bundled_name_that_is_not_on_the_hub_has_no_revision() -> None:
    with pytest.raises(ValueError, match="'notmnist-7x7' comes with this version and has no revision 'v1'; drop"):
        load_prior("notmnist-7x7@v1")


# apply_, and the command line


def test_apply_takes_the_options_of_the_hub(hub: LocalHub, commit: str, tmp_path: Path) -> None:
    one, other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    options = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", "seed": 1, "scale": "fan_in"}
    report = dwp_init.apply_(one, REPO, revision="v1", **options)
    dwp_init.apply_(other, {"*": [tmp_path / "gauss-3x3"]}, seed=1, scale="fan_in")
    assert torch.equal(one.weight, other.weight) and report.drawn[0].prior == "gauss-3x3"
    dwp_init.apply_(one, f"{REPO}@v1", local_files_only=True, **options)
    assert not any(request.token for request in hub.requests())
    for priors in ([f"{REPO}@v1", "notmnist-7x7"], load_prior(tmp_path / "gauss-3x3")):
        with pytest.raises(ValueError, match=r"revision='v1' .* one prior given by name, but (there are|it is a)"):
            dwp_init.apply_(one, priors, revision="v1", **options)


def test_nothing_changes_when_a_prior_cannot_be_had(hub: LocalHub, tmp_path: Path, snapshot: Callable) -> None:
    model = nn.Conv2d(2, 3, 3)
    before = snapshot(model)
    with pytest.raises(PriorNotFoundError):
        dwp_init.apply_(model, "no/where", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert snapshot(model) == before


def test_search(hub: LocalHub, commit: str, files: dict) -> None:
    hub.add_repo("a/other", {"README.md": b"---\ntags: [not-a-prior]\n---\n"})
    card = b"---\ntags: [dwp-prior, kernel-3x3, family-gaussian]\n---\n"
    hub.add_repo("a/prior", {**files, "README.md": card}, private=True)
    assert dwp_init.list_priors(remote=True, endpoint=hub.endpoint) == [REPO]
    hub.tokens["mine"] = type(hub.tokens["hf_write"])("a")
    assert dwp_init.list_priors(remote=True, endpoint=hub.endpoint, token="mine") == ["a/prior", REPO]
    found = dwp_init.hub.search(Access(token="mine", endpoint=hub.endpoint))[0]
    assert (found.repo, found.kernel, found.family) == ("a/prior", "3x3", "gaussian")
    assert found.size >= len(files[MODEL]) and found.downloads == 0 and found.updated[:2] == "20"
    with pytest.warns(UserWarning, match="rejects the configured token"):
        assert dwp_init.list_priors(remote=True, endpoint=hub.endpoint, token="expired") == [REPO]


@pytest.mark.parametrize("size", ["3", "3x3x3", "up-to-16x16"])
def test_kernels_of_every_number_of_axes_are_found(size: str, hub: LocalHub) -> None:
    card = f"---\ntags: [dwp-prior, kernel-channels-3, kernel-{size}]\n---\n"
    hub.add_repo("a/prior", {"README.md": card.encode()})
    assert [found.kernel for found in dwp_init.hub.search(Access(endpoint=hub.endpoint))] == [size]


def test_search_without_a_network(hub: LocalHub, impatient: None) -> None:
    hub.stop()
    with pytest.raises(PriorDownloadError, match=r"could not be searched: .*; list_priors\(\) names"):
        dwp_init.list_priors(remote=True, endpoint=hub.endpoint)


# Requests


def test_requests_are_counted(load: Callable, hub: LocalHub, entry: dict, record_property: Callable) -> None:
    def requests(name: str, **options: object) -> list[tuple[str, str, int]]:
        hub.clear()
        load(name, **options)
        return [(r.method, r.host, r.status) for r in hub.requests()]

    small, large = ("HEAD", "hub", 200), ("HEAD", "hub", 302)  # twice each: ours, and the client's
    cold = [small, small, ("GET", "hub", 200), large, large, ("GET", "files", 200)]
    tag = [small, small]  # the cache knows the commit, but not yet that the tag is on it
    commit = f"{REPO}@{entry['revision']}"
    cases = {
        "cold": ("gauss", cold),
        "warm name": ("gauss", []),
        "warm commit": (commit, []),
        "warm tag": (f"{REPO}@v1", tag),
        "warm tag again": (f"{REPO}@v1", [small]),
    }
    for case, (name, expected) in cases.items():
        found = requests(name)
        record_property(f"requests, {case}", len(found))
        assert found == expected
    assert requests(f"{REPO}@v1", local_files_only=True) == []


def test_the_token_is_never_shown_to_the_file_host(load: Callable, hub: LocalHub, commit: str) -> None:
    hub.repos[REPO].private = True
    load(token="hf_write")
    assert {(r.host, r.token) for r in hub.requests()} == {("hub", "hf_write"), ("files", None)}


# Faults


@pytest.mark.parametrize("fault", [429, 503, "drop"])
def test_a_hub_that_refuses_is_passed_over_when_warm(
    load: Callable, hub: LocalHub, commit: str, fault: int | str, impatient: None, recwarn: pytest.WarningsRecorder
) -> None:
    cold = load()
    hub.fail("HEAD", fault, times=99)
    assert same(load(), cold)
    assert len(recwarn) == (fault == "drop")  # of the others the client makes nothing
    assert all("the Hub cannot be reached" in str(w.message) and "using the cached" in str(w.message) for w in recwarn)


@pytest.mark.parametrize("fault", [429, 503, "drop"])
@pytest.mark.parametrize("file", [CONFIG, MODEL])
def test_a_hub_that_refuses_once_when_cold(
    load: Callable, hub: LocalHub, commit: str, fault: int | str, file: str, impatient: None
) -> None:
    """Whether the client tries again depends on its version: it loads, or says why, and the next try loads."""
    hub.fail(f"HEAD hub .*{file}", fault)
    try:
        load()
    except PriorDownloadError as error:
        assert f"{file} of {REPO}@" in str(error) and "could not be downloaded" in str(error)
    load()


@pytest.mark.parametrize("fault", [429, 503, "drop"])
def test_a_hub_that_refuses_for_good_when_cold(
    load: Callable, hub: LocalHub, commit: str, fault: int | str, impatient: None
) -> None:
    hub.fail("HEAD", fault, times=99)
    with pytest.raises(PriorDownloadError) as caught:
        load()
    message = str(caught.value)
    assert f"config.json of {REPO}@v1 could not be downloaded: " in message
    assert (
        f"`hf download {REPO} config.json model.safetensors --revision v1 --local-dir FOLDER` and pass the folder"
        in message
    )
    assert fault == "drop" or str(fault) in message


def test_a_file_whose_size_is_not_known_is_bounded(
    load: Callable, hub: LocalHub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO].commit({CONFIG: b" " * 40_000_000})
    with monkeypatch.context() as patch:
        patch.setattr("dwp_init.hub.ask", lambda file, address, access: (None, access))
        with pytest.raises(ValueError, match=r"config.json of .* has more than the 1,048,576 bytes that it may"):
            load(f"{REPO}@main")
    assert all(path.stat().st_size < 20_000_000 for path in tmp_path.rglob("*"))
    assert same(load(f"{REPO}@v1"), load_prior(tmp_path / "gauss-3x3"))


def test_a_body_that_is_cut(load: Callable, hub: LocalHub, commit: str, impatient: None, tmp_path: Path) -> None:
    hub.fail("GET files", "cut")
    try:
        load()
    except PriorDownloadError as error:  # clients before 1.20 do not resume
        assert "model.safetensors" in str(error)
    assert same(load(), load_prior(tmp_path / "gauss-3x3"))


@pytest.mark.parametrize("name", [f"{REPO}@v1", "gauss"])
@pytest.mark.parametrize("file", [CONFIG, MODEL])
def test_a_flipped_byte_is_fetched_again(load: Callable, hub: LocalHub, entry: dict, name: str, file: str) -> None:
    hub.fail(f"GET hub .*{file}" if file == CONFIG else "GET files", "flip")
    load(name)
    assert len(hub.requests()) == 9
    hub.clear()
    load(name, local_files_only=True)
    assert hub.requests() == []


@pytest.mark.parametrize("name", [f"{REPO}@v1", "gauss"])
@pytest.mark.parametrize("file", [CONFIG, MODEL])
def test_a_byte_that_stays_flipped_is_never_used(
    load: Callable, hub: LocalHub, entry: dict, name: str, file: str
) -> None:
    hub.fail(f"GET hub .*{file}" if file == CONFIG else "GET files", "flip", times=3)
    with pytest.raises(PriorCorruptError, match=rf"{file} of .* is corrupt \(its .* is [0-9a-f]+, expected "):
        load(name)
    assert sum(r.method == "GET" and (file == CONFIG or r.host == "files") for r in hub.requests()) == 2
    with pytest.raises(PriorCorruptError, match=r"in the cache is corrupt .*, and could not be fetched again"):
        load(name, local_files_only=True)
    hub.faults.clear()
    load(name)  # heals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "config.json has format_version 3, this dwp_init reads up to 2; upgrade dwp_init"),
        ({"family": "gan"}, "a/b@main/config.json names the family 'gan'"),
        (
            {"library_name": "timm"},
            "config.json is the configuration of a model for 'timm', expected one for 'dwp_init'",
        ),
        ({"kernel_shape": [1, 5, 5]}, "a/b@main/model.safetensors does not fit config.json"),
        ({"model_sha256": "0" * 64}, "a/b@main/model.safetensors does not fit config.json: its sha256 is"),
    ],
)
def test_a_repository_of_another_kind(load: Callable, hub: LocalHub, files: dict, change: dict, message: str) -> None:
    hub.add_repo("a/b", {**files, CONFIG: changed_config(files[CONFIG], **change)})
    with pytest.raises((ValueError, PriorCorruptError), match=message):
        load("a/b")


def test_a_config_that_lacks_everything(load: Callable, hub: LocalHub, files: dict) -> None:
    hub.add_repo("a/b", {**files, CONFIG: b'{"architectures": ["Bert"]}'})
    with pytest.raises(ValueError, match="lacks format_version, family, kernel_shape, arguments; a"):
        load("a/b")


def test_a_name_that_the_hub_does_not_allow(load: Callable) -> None:
    with pytest.raises(ValueError, match=r"'a/b\.\.c' is not a valid name of a repository"):
        load("a/b..c")


def test_a_server_that_is_down(load: Callable, hub: LocalHub, entry: dict, impatient: None, tmp_path: Path) -> None:
    warm = load()
    hub.stop()
    assert same(load(), warm) and same(load(REPO, revision="v1"), warm) and same(load("gauss"), warm)
    with pytest.raises(PriorDownloadError, match=rf"not be downloaded: .*, or run `dwp-init pull {REPO}@v1`"):
        load(cache_dir=tmp_path / "cold")


# Processes of their own

# Runs a command without root's rights to any file (the capabilities 1 and 2 of Linux, dropped by prctl 24).
UNPRIVILEGED = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
LOAD = "import sys, dwp_init; print(dwp_init.load_prior(sys.argv[1]).sample(1).shape)"


def test_variables_set_after_the_import_count(hub: LocalHub, commit: str, tmp_path: Path) -> None:
    script = f"""
import os, dwp_init
os.environ["HF_ENDPOINT"] = {hub.endpoint!r}
os.environ["HF_HUB_CACHE"] = {str(tmp_path / "here")!r}
dwp_init.load_prior("{REPO}@v1")
"""
    env = environment(hub, tmp_path / "elsewhere", HF_ENDPOINT="http://127.0.0.1:9")
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
    assert (tmp_path / "here").exists() and not (tmp_path / "elsewhere").exists()


def test_offline_with_a_warm_cache_opens_no_socket(load: Callable, hub: LocalHub, entry: dict, tmp_path: Path) -> None:
    load()
    (tmp_path / "entry.json").write_text(json.dumps({"gauss": entry}))
    script = f"""
import pathlib, socket, sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{{event}} {{arguments}}")

sys.addaudithook(refuse)
import dwp_init, dwp_init.registry
dwp_init.registry.REGISTRY = pathlib.Path({str(tmp_path / "entry.json")!r})
for name in ("gauss", "{REPO}@v1", "{REPO}@{entry["revision"]}"):
    dwp_init.load_prior(name)
try:
    dwp_init.load_prior("{REPO}@v2")
except dwp_init.PriorDownloadError as error:
    print(error)
"""
    env = environment(hub, tmp_path / "cache", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "config.json of dwp-init/gauss-3x3@v2 is not in the cache, and local_files_only or HF" in done.stdout


def test_eight_processes_at_once(hub: LocalHub, commit: str, tmp_path: Path) -> None:
    command, env = [sys.executable, "-c", LOAD, f"{REPO}@v1"], environment(hub, tmp_path / "cache")
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        assert output == b"torch.Size([1, 1, 3, 3])\n" and errors == b""
    assert len([r for r in hub.requests() if r.host == "files"]) == 1


def test_killed_while_downloading(hub: LocalHub, commit: str, load: Callable, tmp_path: Path) -> None:
    hub.fail("GET files", "trickle")
    command, env = [sys.executable, "-c", LOAD, f"{REPO}@v1"], environment(hub, tmp_path / "cache")
    process = subprocess.Popen(command, env=env)
    deadline = time.monotonic() + 60
    while not any(r.host == "files" for r in hub.requests()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert same(load(), load_prior(tmp_path / "gauss-3x3"))


def test_a_read_only_cache(hub: LocalHub, commit: str, load: Callable, tmp_path: Path) -> None:
    load()
    (tmp_path / "cold").mkdir()
    for path in (tmp_path / "cache", *(tmp_path / "cache").rglob("*"), tmp_path / "cold"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    probe = "import os, sys; sys.exit(os.access(sys.argv[1], os.W_OK))"
    unprivileged = [sys.executable, "-c", UNPRIVILEGED] if os.getuid() == 0 else []
    if subprocess.run([*unprivileged, sys.executable, "-c", probe, str(tmp_path / "cold")]).returncode:
        pytest.skip("this user may write anywhere")
    command = [*unprivileged, sys.executable, "-c", LOAD]
    before = sorted((tmp_path / "cache").rglob("*"))
    for name in (f"{REPO}@v1", f"{REPO}@{commit}"):
        env = environment(hub, tmp_path / "cache")
        done = subprocess.run([*command, name], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "cache").rglob("*")) == before
    env = environment(hub, tmp_path / "cold")
    done = subprocess.run([*command, f"{REPO}@v1"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "PriorDownloadError: config.json of dwp-init/gauss-3x3@v1 cannot be written: [Errno 13]" in done.stderr
    assert "pass cache_dir= or set HF_HUB_CACHE to a folder that is writable" in done.stderr


def test_a_cache_without_links(
    load: Callable, hub: LocalHub, commit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on Windows: the digest in the configuration is all that the weights can be compared with."""
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_, **__: False)
    hub.fail("GET files", "flip")
    assert same(load(), load_prior(tmp_path / "gauss-3x3"))
    assert sum(r.host == "files" for r in hub.requests()) == 2
    hub.fail("GET files", "flip", times=2)
    with pytest.raises(PriorCorruptError, match=r"model.safetensors of .* is corrupt \(its digest is .*, expected"):
        load(cache_dir=tmp_path / "other")


@pytest.mark.parametrize("damage", [lambda whole: whole[:50], lambda whole: b"", lambda whole: whole[:-20] + b" " * 20])
def test_a_damaged_configuration_in_a_cache_without_links(
    damage: Callable, load: Callable, commit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_, **__: False)
    load()
    (path,) = (tmp_path / "cache").rglob(CONFIG)
    whole = path.read_bytes()
    for address in (f"{REPO}@v1", f"{REPO}@{commit}"):
        path.write_bytes(damage(whole))
        with pytest.raises(
            PriorCorruptError, match=rf"config.json of .* is corrupt \(it .*; or remove {re.escape(str(path))}"
        ):
            load(address, local_files_only=True)
        assert same(load(address), load_prior(tmp_path / "gauss-3x3")) and path.read_bytes() == whole


@pytest.mark.parametrize(
    "change", [{"library_name": "timm"}, {"family": "gan"}, {"kernel_shape": [0] * 3}, {"arguments": {"a": 1}}]
)
def test_no_weights_are_fetched_for_a_configuration_that_describes_no_prior(
    load: Callable, hub: LocalHub, files: dict, change: dict
) -> None:
    hub.add_repo("a/b", {**files, CONFIG: changed_config(files[CONFIG], **change)})
    with pytest.raises(ValueError, match=r"a/b@main/config\.json"):
        load("a/b")
    assert not [r for r in hub.requests() if MODEL in r.path and r.method == "GET"]


def test_a_full_disk_is_not_taken_for_a_hub_that_is_away(
    load: Callable, hub: LocalHub, commit: str, files: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No older commit is served instead."""
    load(REPO)
    hub.repos[REPO].commit({CONFIG: changed_config(files[CONFIG], license="other")})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(PriorDownloadError, match=r"cannot be written: .*No space left on device; pass cache_dir="):
        load(REPO)


def test_a_rejected_token_where_warnings_are_errors(load: Callable, commit: str) -> None:
    with pytest.raises(UserWarning, match="the Hub rejects the configured token"):
        load(token="expired")
