"""Transfers from a Hub that is hostile or slow: bounded in bytes and in time, and no secret in any message."""

import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import dwp_init.hub
import dwp_init.transfer
from dwp_init import PriorCorruptError, PriorDownloadError
from dwp_init.access import Access
from dwp_init.errors import without_secrets
from dwp_init.folder import CONFIG, MODEL
from dwp_init.transfer import within
from tests.localhub import LocalHub
from tests.localhub.answers import Answer, HubError
from tests.models import changed_config


def refusing(answer: Answer) -> Callable:
    """Returns a fault that answers a request with this."""

    def refuse(call: object) -> None:
        error = HubError(400, "")
        error.answer = answer
        raise error

    return refuse


@pytest.mark.parametrize("etag", ["..", "../../../../x", "a/b", "a" * 300])
def test_a_name_that_would_leave_the_cache_is_refused(load: Callable, hub: LocalHub, commit: str, etag: str) -> None:
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit}
    hub.fail(CONFIG, refusing(Answer(b"{}", 200, headers)), times=9)
    with pytest.raises(PriorDownloadError, match=r"under '.*', which is no digest and could be anywhere; nothing was"):
        load()
    assert not [request for request in hub.requests() if request.method == "GET"]


def test_files_larger_than_expected_are_not_fetched(load: Callable, hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add_repo("a/config", files | {CONFIG: changed_config(files[CONFIG])[:-2] + b" " * 2**20 + b"}"})
    with pytest.raises(ValueError, match=r"config.json of a/config@main has 1,0.* bytes; a config.json may have"):
        load("a/config")
    hub.add_repo("a/model", files | {MODEL: bytes(2**20)})
    with pytest.raises(ValueError, match=r"model.safetensors of a/model@.* has 1,048,576 bytes; .* may have at most"):
        load("a/model")
    assert [request.path.split("/")[-1] for request in hub.requests() if request.method == "GET"] == [CONFIG]


def test_a_rejected_token_does_not_lift_the_bounds(load: Callable, hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add_repo("a/model", files | {MODEL: bytes(2**20)})
    with (
        pytest.warns(UserWarning, match="the Hub rejects the configured token"),
        pytest.raises(ValueError, match=r"model.safetensors of a/model@.* has 1,048,576 bytes; .* may have at most"),
    ):
        load("a/model", token="hf_expired")
    assert [request.path.split("/")[-1] for request in hub.requests() if request.method == "GET"] == [CONFIG]


def test_a_link_out_of_the_cache_is_not_followed(load: Callable, hub: LocalHub, commit: str, tmp_path: Path) -> None:
    load()
    link = next((tmp_path / "cache").rglob(f"snapshots/*/{CONFIG}"))
    outside = tmp_path / "outside.json"
    outside.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(PriorDownloadError, match=r"config.json of .* is outside of the cache, at .*outside.json"):
        load()


def test_blobs_that_repositories_share_are_read(load: Callable, commit: str, tmp_path: Path) -> None:
    """A client files a blob under its digest, or files there a link to a store of blobs under other names."""
    load()
    link = next((tmp_path / "cache").rglob(f"snapshots/*/{MODEL}"))
    blob, store = link.resolve(), tmp_path / "cache" / "blobs" / "ab"
    store.mkdir(parents=True)
    blob.rename(store / f"ab{'3' * 62}")
    blob.symlink_to(store / f"ab{'3' * 62}")
    load(local_files_only=True)
    (store / f"ab{'3' * 62}").write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(PriorCorruptError, match=rf"corrupt \(its digest is .*, expected {blob.name}\)"):
        load(local_files_only=True)


def test_a_transfer_ends_after_a_while(
    load: Callable, hub: LocalHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwp_init.transfer, "SECONDS", 0.5)
    hub.fail(f"GET hub .*{CONFIG}", "trickle", times=9)
    start = time.monotonic()
    with pytest.raises(PriorDownloadError, match=r"TimeoutError: it took longer than [01] seconds; try again later"):
        load()
    assert time.monotonic() - start < 20


def test_within() -> None:
    assert within(60, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(60, lambda: {}["missing"])
    with pytest.raises(TimeoutError, match="it took longer than 0 seconds"):
        within(0.05, lambda: threading.Event().wait(5))


def test_messages_and_tracebacks_show_no_secret(load: Callable, hub: LocalHub, commit: str, impatient: None) -> None:
    said = refusing(Answer(b"", 500, {"X-Error-Message": "you sent hf_write, to user:word@host"}))
    hub.fail(".*", said, times=99)
    token, endpoint = "_".join(["hf", "write"]), hub.endpoint.replace("//", "//user:word@")
    for where in (hub.endpoint, endpoint):
        with pytest.raises(PriorDownloadError) as error:
            load(token=token, endpoint=where)
        text = "".join(traceback.format_exception(error.value))
        assert "hf_write" not in text and "user:word" not in text and str(error.value)
    access = Access(token="hf_write", endpoint=endpoint)
    assert without_secrets("hf_write word https://user:x@host/a Bearer abc", access) == "… … https://…@host/a Bearer …"
