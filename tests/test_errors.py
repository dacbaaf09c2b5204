"""Errors of the Hub: what is missing, private, gated, or cannot be written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dwp_init import PriorCorruptError, PriorDownloadError, PriorError, PriorNotFoundError
from dwp_init.folder import CONFIG, MODEL
from tests.localhub import LocalHub
from tests.models import REPO


def test_a_cache_that_cannot_be_written(load: Callable, hub: LocalHub, commit: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PriorDownloadError, match=r"config\.json of dwp-init/gauss-3x3@v1"):
        load(cache_dir=tmp_path / "file")


@pytest.mark.parametrize("token", [None, "expired"])
def test_an_expired_token(
    load: Callable, hub: LocalHub, commit: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "expired")
    with pytest.warns(
        UserWarning, match="the Hub rejects the configured token, which may have expired; continuing without"
    ):
        load(token=token)
    hub.repos[REPO].private = True
    with pytest.raises(PriorNotFoundError, match="shows no such repository; the configured token was rejected: check"):
        load("dwp-init/gauss-3x3@main", token=token)


@pytest.mark.parametrize("token", [False, "hf_other"])
def test_a_private_repository(load: Callable, hub: LocalHub, commit: str, token: str | bool) -> None:
    hub.repos[REPO].private = True
    with pytest.raises(PriorNotFoundError, match="shows no such repository: check the name or, if it is priv"):
        load(token=token)
    load(token="hf_write")


@pytest.mark.parametrize("token", [False, "hf_read"])
def test_a_gated_repository(load: Callable, hub: LocalHub, commit: str, token: str | bool) -> None:
    hub.repos[REPO].gated = "auto"
    with pytest.raises(PriorNotFoundError, match="is gated: accept its terms on its page on the Hub"):
        load(token=token)
    hub.repos[REPO].allowed.add("reader")
    load(token="hf_read")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dwp-init/gauss", "'dwp-init/gauss' is not a folder here, and the Hub shows no such repository: check"),
        (f"{REPO}@v2", "'dwp-init/gauss-3x3' has no revision 'v2'; its page on the Hub lists its tags"),
        (f"{REPO}@{'0' * 40}", "'dwp-init/gauss-3x3' has no revision '0000"),
    ],
)
def test_what_is_not_there(load: Callable, commit: str, name: str, message: str) -> None:
    with pytest.raises(PriorNotFoundError, match=message):
        load(name)


@pytest.mark.parametrize("file", [CONFIG, MODEL])
def test_a_missing_file(load: Callable, hub: LocalHub, files: dict, file: str) -> None:
    del files[file]
    hub.add_repo("a/b", {**files, "pytorch_model.bin": b"\x80\x04."})
    for _ in range(2):  # the second time the client knows that it is absent
        with pytest.raises(
            PriorNotFoundError, match=f"a/b@.* has no {file}, so it is not a dwp_init prior, .* such as pickles, are"
        ):
            load("a/b")
    assert not [r.path for r in hub.requests() if r.path.endswith(".bin")]


def test_every_error_of_the_hub_is_a_prior_error() -> None:
    for kind in (PriorNotFoundError, PriorDownloadError, PriorCorruptError):
        assert issubclass(kind, PriorError) and issubclass(kind, RuntimeError)
