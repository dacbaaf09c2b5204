import hashlib
from pathlib import Path

import pytest

from training.kernels.source_file import SourceFile

FILE = SourceFile("kernels.txt", hashlib.sha256(b"1 2 3").hexdigest(), "https://example.org")


@pytest.mark.parametrize("place", ["kernels.txt", "rivals/kernels.txt"])
def test_a_file_is_found_in_the_folder_and_one_below(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"1 2 3")
    assert FILE.find(tmp_path) == tmp_path / place


def test_other_contents_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no kernels.txt in .* or its folders; get it from https://example.org"
    ):
        FILE.find(tmp_path)
    (tmp_path / "kernels.txt").write_bytes(b"1 2 4")
    other = hashlib.sha256(b"1 2 4").hexdigest()
    with pytest.raises(ValueError, match=f"has the SHA-256 {other}, but {FILE.sha256} is expected; get it again from"):
        FILE.find(tmp_path)
