"""Random changes of images by tensor operations alone, so that they can be part of a recorded step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4  # pixels that an image may be shifted by
ANGLE, SIZE, SHEAR, SHIFT = math.pi / 12, 0.15, 0.2, 2.0  # limits of affine maps; the last in pixels


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


def cropped(images: Tensor) -> Tensor:
    """Shifts images ``(n, c, h, w)`` by up to 4 pixels, each at random, and flips half of them left to right."""
    shifts = torch.randint(2 * PADDING + 1, (len(images), 2), device=images.device)
    return moved(images, shifts, torch.randint(2, (len(images),), device=images.device))


def transformed(images: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """Transforms each image about its centre, with linear interpolation and zeros outside.

    Args:
        images: ``(n, c, h, w)``.
        matrices: ``(n, 2, 2)``, which map a place in the new image to one in the old, in pixels right and down of the
            centre.
        shifts: ``(n, 2)``, which are added to that place.
    """
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2], device=images.device, dtype=images.dtype)
    theta = torch.cat([matrices * half / half[:, None], (shifts / half)[..., None]], 2)  # in units of half an image
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def affine(images: Tensor) -> Tensor:
    """Rotates, scales, shears and shifts images ``(n, c, h, w)``, each at random and evenly within the limits."""
    angle, size, shear, right, down = (
        limit * (2 * torch.rand(len(images), device=images.device, dtype=images.dtype) - 1)
        for limit in (ANGLE, SIZE, SHEAR, SHIFT, SHIFT)
    )
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    shearing = torch.eye(2, device=images.device, dtype=images.dtype).repeat(len(images), 1, 1)
    shearing[:, 0, 1] = shear
    return transformed(images, rotation @ shearing * (1 + size)[:, None, None], torch.stack([right, down], 1))


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"affine": affine, "crop and flip": cropped}


@dataclass(frozen=True)
class Augment:
    """Maps images ``(n, c, h, w)`` to random copies ``(n, copies, c, h, w)``, for the mean likelihood of the copies.

    The likelihood of an image is (1/K) Σₖ p(y | copy k), so that it counts once, with any number of copies. With K = 1
    its logarithm is in expectation the mean of log p(y | copy), a lower bound on the log of the mean over all copies;
    it rises with K to that. To scale each of K copies up to the whole set as an image of its own would instead raise
    the likelihood to the power of K, a posterior of temperature 1/K, which passes for Bayes' rule and is none.

    Args:
        name: Of :data:`AUGMENTATIONS`.
        copies: K.

    Raises:
        ValueError: An argument is wrong.

    References:
        Wenzel et al., How Good is the Bayes Posterior in Deep Neural Networks Really?, ICML 2020; Nabarro et al., Data
        augmentation in Bayesian neural networks and the cold posterior effect, UAI 2022.
    """

    name: str
    copies: int = 1

    def __post_init__(self) -> None:
        if self.name not in AUGMENTATIONS:
            raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}; got {self.name!r}")
        if type(self.copies) is not int or self.copies < 1:
            raise ValueError(f"copies must be a whole number from 1; got {self.copies!r}")

    def __call__(self, images: Tensor) -> Tensor:
        every = images.repeat_interleave(self.copies, 0)
        return AUGMENTATIONS[self.name](every).reshape(len(images), self.copies, *images.shape[1:])
