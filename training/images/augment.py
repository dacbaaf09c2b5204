"""Random shifts and flips of images, by operations on tensors alone, so that a recorded step can make them."""

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4  # pixels that an image may be shifted by


def moved(images: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Crops each image ``(n, c, h, w)`` out of its zero-padded self and maybe flips it.

    Args:
        images: The images.
        shifts: Where the crop begins, ``(n, 2)``, down and right, from 0 to 8; 4 is the image itself.
        flips: ``(n,)``: 1 for left to right.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4).permute(0, 2, 3, 1)
    columns = torch.arange(width, device=images.device).expand(n, -1)
    columns = torch.where(flips[:, None] == 1, width - 1 - columns, columns) + shifts[:, 1:]
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
