"""Safetensors files: plain data, whose headers are read without the tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.kernels.formats.base import Entry, Format


class SafetensorsFormat(Format):
    """State dicts as ``safetensors.torch.save_file`` writes them, which sorts them by type and name."""

    suffixes = (".safetensors",)
    ordered = False

    def entries(self, path: Path) -> dict[str, Entry]:
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is not a dictionary
                return {name: Entry(part.get_dtype(), tuple(part.get_shape()), path) for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(
                f"{path} is not a complete safetensors file ({error}); get it again, or remove it"
            ) from error

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[str], Tensor]]:
        with safe_open(path, framework="pt") as file:
            yield file.get_tensor
