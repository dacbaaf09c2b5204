"""The format of a file follows from its name."""

from pathlib import Path

import pytest

from training.kernels.formats import FORMATS, format_of


def test_every_suffix_has_one_format() -> None:
    for each in FORMATS:
        assert each.suffixes and all(format_of(Path(f"net{suffix}")) is each for suffix in each.suffixes)
    with pytest.raises(
        ValueError, match=r"ends in \.safetensors, \.onnx, \.pth, \.pt, \.bin or \.ckpt; got 'net\.dat'"
    ):
        format_of(Path("net.dat"))
