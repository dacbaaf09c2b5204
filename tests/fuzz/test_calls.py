"""The calls that change files are heard before they are made, and can be refused."""

import errno
import os
from pathlib import Path

import pytest

from dwp_init.storage import write_bytes
from tests.fuzz.calls import Call, listening


def test_the_calls_of_a_file_that_is_written_whole(tmp_path: Path) -> None:
    calls: list[Call] = []
    (tmp_path / "here2").mkdir()
    (tmp_path / "here").mkdir()
    with listening(tmp_path / "here", calls.append):
        write_bytes(tmp_path / "here" / "a", b"content")
        write_bytes(tmp_path / "here2" / "b", b"content")
        with (tmp_path / "here" / "a").open("a") as file:
            file.write("more")
    write_bytes(tmp_path / "here" / "c", b"content")
    temporary = calls[0].path
    assert temporary.name.startswith(".a.") and calls == [
        Call("create", temporary),
        Call("sync", temporary),
        Call("rename", temporary, tmp_path / "here" / "a"),
        Call("sync", tmp_path / "here"),
        Call("remove", temporary),  # which is no longer there
        Call("append", tmp_path / "here" / "a"),
    ]


@pytest.mark.parametrize("kind", ["create", "sync", "rename"])
def test_a_call_that_is_refused_is_not_made(kind: str, tmp_path: Path) -> None:
    def refuse(call: Call) -> None:
        if call.kind == kind:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with listening(tmp_path, refuse), pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"content")
    assert list(tmp_path.iterdir()) == []
