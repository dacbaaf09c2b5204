"""File formats of checkpoints, one a file, with the same methods: tensors by name, read without running code."""

from pathlib import PurePath

from training.kernels.formats.base import Format
from training.kernels.formats.onnx_graphs import OnnxFormat
from training.kernels.formats.safetensors_files import SafetensorsFormat
from training.kernels.formats.state_dicts import StateDictFormat

FORMATS: tuple[Format, ...] = (SafetensorsFormat(), OnnxFormat(), StateDictFormat())
SUFFIXES = tuple(suffix for each in FORMATS for suffix in each.suffixes)
IN_FOLDERS = tuple(suffix for suffix in SUFFIXES if suffix not in (".bin", ".ckpt"))  # these may be anything


def any_of(suffixes: tuple[str, ...]) -> str:
    """Lists suffixes as a message does, such as ``.pth, .pt or .onnx``."""
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


def format_of(file: PurePath) -> Format:
    """Returns the format of a file, by the end of its name.

    Raises:
        ValueError: No format has files that end so.
    """
    for each in FORMATS:
        if file.suffix in each.suffixes:
            return each
    raise ValueError(f"a checkpoint's file ends in {any_of(SUFFIXES)}; got {file.name!r}")
