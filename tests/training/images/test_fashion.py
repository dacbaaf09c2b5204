import gzip
from pathlib import Path

import pytest
import torch

from training.images.fashion import PACKAGED, read_packaged


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(("split", "each"), [("train", 6000), ("test", 1000)])
def test_the_package(split: str, each: int) -> None:
    images, labels = read_packaged(split, PACKAGED)
    assert images.shape == (10 * each, 1, 28, 28) and images.dtype == torch.uint8 and images.is_contiguous()
    assert labels.dtype == torch.int64 and labels.bincount().tolist() == [each] * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"raw", "cannot be read"),
        (gzip.compress(b"images", mtime=0)[:-9], "cannot be read"),
        (gzip.compress(b"images", mtime=0).replace(b"\xcb", b"\xff", 1), "cannot be read"),  # the first of its data
        (gzip.compress(b"images", mtime=0), r"has the SHA-256 [0-9a-f]{64}, expected 5b4141f0"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=f"t10k-images-idx3-ubyte.*{message}.*|{message}.*t10k") as caught:
        read_packaged("test", tmp_path)
    assert "put a copy under --data-root" in str(caught.value)
