"""Random shifts and flips of images, by tensor operations alone, so that they can be part of a recorded step."""

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4  # pixels that an image may be shifted by


def moved(images: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Pads images with zeros, crops each to its size at a given shift, and flips some.

    Args:
        images: ``(n, c, h, w)``.
        shifts: Row and column at which each crop begins, ``(n, 2)``, from 0 to 8; with 4 the image is not shifted.
        flips: ``(n,)``, 1 for images that are flipped left to right, else 0.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4).permute(0, 2, 3, 1)
    columns = torch.arange(width, device=images.device).expand(n, -1)
    columns = torch.where(flips[:, None] == 1, width - 1 - columns, columns) + shifts[:, 1:]
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
