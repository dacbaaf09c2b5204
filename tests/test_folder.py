"""A prior's folder holds a whole prior at every moment: under kills, readers and other writers."""

import contextlib
import errno
import importlib
import json
import multiprocessing
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dwp_init.folder
from dwp_init import Gaussian, load_prior, save_prior
from dwp_init.folder import CONFIG, MODEL, check_size, read_files
from dwp_init.storage import write_bytes

OLD, NEW = 0, 1


def prior(seed: int) -> Gaussian:
    kernels = torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return Gaussian((1, 3, 3)).fit_(kernels)


def found(folder: Path) -> int:
    """Says which of the two priors a folder holds."""
    loc = load_prior(folder).state_dict()["whitening.loc"]
    return next(seed for seed in (OLD, NEW) if torch.equal(loc, prior(seed).state_dict()["whitening.loc"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_prior(prior(OLD), tmp_path / "prior")


def _save_until(folder: Path, call: int) -> None:
    """Saves the new prior; the process ends as under SIGKILL at a call that writes, counted from 1."""
    calls = 0

    def counted(real: Callable) -> Callable:
        def act(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                os._exit(9)
            return real(*arguments, **options)

        return act

    for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync")):
        setattr(owner, name, counted(getattr(owner, name)))
    save_prior(prior(NEW), folder)


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_call_leaves_the_old_prior_or_the_new_one(tmp_path: Path) -> None:
    processes, seen = multiprocessing.get_context("fork"), []
    folders = [save_prior(prior(OLD), tmp_path / str(call)) for call in range(1, 16)]
    running = [processes.Process(target=_save_until, args=(folder, call)) for call, folder in enumerate(folders, 1)]
    for process in running:
        process.start()
        process.join()
    killed = [folder for folder, process in zip(folders, running, strict=True) if process.exitcode == 9]
    for folder in killed:
        seen.append(found(folder))
        save_prior(prior(NEW), folder)
        assert found(folder) == NEW and {path.name for path in folder.iterdir()} == {CONFIG, MODEL}
    assert len(killed) < 15 and seen == sorted(seen) and set(seen) == {OLD, NEW}  # all calls, and a moment of change


@pytest.mark.parametrize("name", [CONFIG, MODEL])
def test_a_reader_is_not_confused_by_a_writer(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, saved = dwp_init.folder.read_bounded, []

    def read(path: Path, kind: str) -> bytes:
        content = real(path, kind)
        if kind == name and not saved:  # another process replaces the prior between two reads
            saved.append(save_prior(prior(NEW), folder))
        return content

    monkeypatch.setattr(dwp_init.folder, "read_bounded", read)
    assert found(folder) in (OLD, NEW) and saved


def test_a_folder_that_changes_all_the_time_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = dwp_init.folder.read_bounded, iter(range(10**6))

    def read(path: Path, kind: str) -> bytes:
        return real(path, kind) if kind == CONFIG else str(next(count)).encode()

    monkeypatch.setattr(dwp_init.folder, "read_bounded", read)
    with pytest.raises(ValueError, match=f"{folder} changed 1000 times while it was read; wait until it is written"):
        read_files(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of folders")
def test_writers_take_turns(folder: Path) -> None:
    def save(seed: int) -> None:
        for _ in range(10):
            save_prior(prior(seed), folder)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in (OLD, NEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(folder) in (OLD, NEW) and {path.name for path in folder.iterdir()} == {CONFIG, MODEL}


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no lock")
def test_a_process_forked_meanwhile_keeps_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loader of data in another thread forks it; it lives on."""
    handles: list[int] = []
    closing = os.close
    monkeypatch.setattr(os, "close", lambda handle: (handles.append(os.dup(handle)), closing(handle)))
    save_prior(prior(NEW), folder)
    monkeypatch.undo()
    other = os.open(folder, os.O_RDONLY)
    fcntl = importlib.import_module("fcntl")
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for handle in (*handles, other):
        os.close(handle)


def test_where_folders_have_no_lock_and_no_handle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert found(save_prior(prior(NEW), folder)) == NEW


@pytest.mark.skipif(sys.platform == "win32", reason="has no flock")
@pytest.mark.parametrize("call", range(1, 4))
def test_two_writers_that_cannot_lock_leave_a_whole_prior(
    call: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    real, calls = Path.replace, iter(range(1, 99))

    def replace(path: Path, target: Path) -> Path:
        if next(calls) == call:  # another writer comes between two steps of this one
            save_prior(prior(OLD), folder)
        return real(path, target)

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(Path, "replace", replace)
    save_prior(prior(NEW), folder)
    assert found(folder) in (OLD, NEW) and {path.name for path in folder.iterdir()} == {CONFIG, MODEL}


def test_a_writer_that_cannot_lock_ends_where_others_write_all_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(dwp_init.folder, "read_files", lambda folder: {CONFIG: b"{}", MODEL: b""})
    monkeypatch.setattr(dwp_init.folder, "stated_digest", lambda config: "0" * 64)
    with pytest.raises(OSError, match=r"others write to .* all the time, and it cannot be locked; wait until they ha"):
        save_prior(prior(NEW), folder)


def test_a_last_name_that_cannot_be_taken_is_no_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if target.name == MODEL:
            raise PermissionError(errno.EACCES, "in use by another process")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        save_prior(prior(NEW), folder)
        assert found(folder) == NEW
    save_prior(prior(OLD), folder)
    assert found(folder) == OLD and {path.name for path in folder.iterdir()} == {CONFIG, MODEL}


@pytest.mark.skipif(sys.platform == "win32", reason="does not sync folders")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_where_folders_cannot_be_synced(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "sync")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if number == errno.EINVAL else pytest.raises(OSError, match="sync"):
        save_prior(prior(NEW), folder)
    assert number == errno.EIO or found(folder) == NEW


def test_leftovers_of_writers_that_could_not_lock_go_after_an_hour(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f".{MODEL}.{'a' * 64}", f".{CONFIG}.0123abcd.tmp"]
    for name, age in zip(names, (7200, 60), strict=True):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    monkeypatch.setattr(sys, "platform", "win32")
    save_prior(prior(NEW), folder)
    assert [(folder / name).exists() for name in names] == [False, True]


@pytest.mark.parametrize("name", [CONFIG, MODEL])
def test_a_reader_of_a_folder_without_digests_is_not_confused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {key: value for key, value in json.loads((folder / CONFIG).read_bytes()).items() if "sha256" not in key}
    (folder / CONFIG).write_text(json.dumps(config | {"format_version": 1}))
    old, real, after = read_files(folder), dwp_init.folder.read_bounded, []

    def read(path: Path, kind: str) -> bytes:
        content = real(path, kind)
        if kind == name and not after:
            after.append(save_prior(prior(NEW), folder))
        return content

    monkeypatch.setattr(dwp_init.folder, "read_bounded", read)
    assert read_files(folder) in (old, read_files(folder)) and after


def test_files_of_others_stay(folder: Path) -> None:
    for name in (f".{MODEL}.swp", f".{MODEL}.backup"):
        (folder / name).write_bytes(b"mine")
    save_prior(load_prior(folder), folder)
    assert (folder / f".{MODEL}.swp").exists() and (folder / f".{MODEL}.backup").exists()


def test_contents_are_on_the_disk_before_names_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = Path.replace, os.fsync
    monkeypatch.setattr(Path, "replace", lambda *a: (calls.append("name"), real[0](*a))[1])
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("disk"), real[1](*a))[1])
    write_bytes(tmp_path / "a", b"content")
    assert calls == ["disk", "name"] + ["disk"] * (sys.platform != "win32")


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse there")
def test_files_larger_than_stated_are_not_read(folder: Path) -> None:
    os.truncate(folder / MODEL, 30 * 2**30)  # sparse
    with pytest.raises(ValueError, match=r"safetensors has 32,212,254,720 bytes; a model.safetensors may have at most"):
        load_prior(folder)
    (folder / CONFIG).write_text('{"x": "' + "a" * 2**20 + '"}')
    with pytest.raises(ValueError, match=r"config.json has 1,048,585 bytes; a config.json may have at most 1,048,576"):
        load_prior(folder)
    with pytest.raises(ValueError, match=r"here has 11 bytes; a config.json may have at most 10 here: check the prior"):
        check_size(11, CONFIG, "here", 10)


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    large = prior(OLD)
    large.details = {"list": "a" * 2**20}
    with pytest.raises(ValueError, match=r"could not rebuild this prior: .*config.json has 1,04.* bytes; .* at most"):
        save_prior(large, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()
