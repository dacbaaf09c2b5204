"""Covariances between the channels of two pixels of images, by how far the pixels are apart."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from dwp_init.priors.whitening import identity
from dwp_init.split import split

_IMAGES = 256  # images that are transformed at a time


def of_channels(covariance: Tensor, channels: int) -> Tensor:
    """Returns covariances between so many channels, ``(channels, channels, *lags)``, from those of images."""
    own = len(covariance)
    if channels == own:
        return covariance
    if channels == 1:
        return covariance.mean((0, 1), keepdim=True)
    same = covariance.diagonal().mean(-1)
    different = (covariance.sum((0, 1)) - own * same) / (own * (own - 1)) if own > 1 else same
    is_same = identity(channels).to(same.device).view(channels, channels, *[1] * same.dim())
    return is_same * same + (1 - is_same) * different


def autocovariance(values: Tensor, span: Sequence[int]) -> Tensor:
    """Returns the mean of a(x) b(x + Δ) over images ``(n, c, *size)``, ``(c, c, *lags)``, at a, b and span − 1 + Δ."""
    axes, size = tuple(range(2, values.dim())), values.shape[2:]
    padded = [length + limit for length, limit in zip(size, span, strict=True)]
    total = values.new_zeros(())
    for part in split(values, _IMAGES):
        spectrum = cast(Tensor, torch.fft.rfftn(part, padded, axes))
        total = total + torch.einsum("na...,nb...->ab...", spectrum.conj(), spectrum)
    found = cast(Tensor, torch.fft.irfftn(total, padded, axes)) / len(values)
    for axis, length, limit in zip(axes, size, span, strict=True):
        lags = torch.arange(1 - limit, limit, device=values.device)
        shape = [1] * found.dim()
        shape[axis] = -1
        found = found.index_select(axis, lags % found.shape[axis]) / (length - lags.abs()).view(shape)
    return found
