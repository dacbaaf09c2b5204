"""Safetensors files that are broken; whole ones are read by the tests of places and of the harvest."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.kernels.formats.safetensors_files import SafetensorsFormat


@pytest.mark.parametrize("length", [0, 4, 30, -1])
def test_a_broken_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(2, 3)}, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=r"cut\.safetensors is not a complete safetensors file \(.*\); get it again, or remove"
    ):
        SafetensorsFormat().entries(path)
