"""The eight master key filters: 7×7 depthwise filters to which those of trained networks come close."""

import re
from pathlib import Path

import torch
from torch import Tensor

from training.kernels.source_file import SourceFile

FILTERS_FILE = SourceFile(
    "master_filters.txt",
    "b48e20624d5089caa7a5bfcacf12d7a43f32aab5571f3a02e6583514c3506fcc",
    "https://github.com/tonylindeberg/masterfiltmodel (CC-BY-4.0)",
)


def master_filters(path: Path) -> Tensor:
    """Reads the eight filters ``(8, 1, 7, 7)``: blocks of seven lines of seven numbers, each under a heading.

    Reference: Kiasari et al., NeurIPS 2025.
    """
    numbers = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"\s*-?\d", line)]
    return torch.tensor([[float(number) for number in line.split()] for line in numbers]).reshape(-1, 1, 7, 7)
