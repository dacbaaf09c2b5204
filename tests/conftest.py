"""Small priors and snapshots that several test modules share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dwp_init import Gaussian


@pytest.fixture
def gaussian() -> Callable[..., Gaussian]:
    """Makes Gaussians of any kernel size, fitted to smooth kernels with a mean."""

    def fit(size: int = 3, channels: int = 1) -> Gaussian:
        dim = channels * size**2
        generator = torch.Generator().manual_seed(dim)
        mix = torch.randn(dim, dim, generator=generator) / dim
        kernels = 0.02 + torch.randn(500, dim, generator=generator) @ mix
        return Gaussian((channels, size, size)).fit_(kernels.view(-1, channels, size, size))

    return fit


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, bytes]]:
    """Takes the bytes of every parameter and buffer, by name."""

    def read(tensor: Tensor) -> bytes:
        return bytes(
            tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8).tolist()
        )

    def take(model: nn.Module) -> dict[str, bytes]:
        return {name: read(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}

    return take
