"""The scattering transform as fixed features: wavelets, moduli and averages, without anything learned or drawn."""

import torch
from torch import Tensor, nn

_AT_ONCE = 50  # images whose coefficients of all wavelets are in memory at a time


class Scattering(nn.Module):
    """Maps images ``(n, 1, h, w)`` to scattering coefficients up to the second order, ``(n, paths · cells)``.

    The coefficients are those of kymatio, with 2^J pixels a cell. Each path, a sequence of wavelets, is divided by its
    root mean square over the training images: without that, the averages of the image outweigh all details.

    Args:
        shape: Height and width of the images.
        scales: J, the logarithm to base 2 of the largest scale.
        angles: L, the number of angles of the wavelets.

    Raises:
        ImportError: kymatio is not installed.

    Reference: Bruna & Mallat, Invariant Scattering Convolution Networks, IEEE TPAMI 2013.
    """

    rms: Tensor

    def __init__(self, shape: tuple[int, int], scales: int, angles: int) -> None:
        super().__init__()
        try:  # kymatio.torch also imports its 3-D part, which needs functions that SciPy 1.17 has no more
            from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D
        except ImportError as error:
            raise ImportError("scattering needs the library kymatio; pip install '.[rivals]'") from error
        self.transform = ScatteringTorch2D(J=scales, shape=shape, L=angles)
        self.register_buffer("rms", torch.ones(()))

    @torch.no_grad()
    def calibrate_(self, images: Tensor) -> "Scattering":
        """Sets the root mean square of each path to that over images ``(n, 1, h, w)``."""
        self.rms = torch.ones(())
        self.rms = self._paths(images).square().mean((0, 2, 3), keepdim=True).sqrt()
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return (self._paths(images) / self.rms).flatten(1)

    def _paths(self, images: Tensor) -> Tensor:
        """Returns the coefficients by path and cell, ``(n, paths, h / 2^J, w / 2^J)``."""
        found = [self.transform(part[:, 0].contiguous()) for part in images.split(_AT_ONCE)]
        return torch.cat(found)
