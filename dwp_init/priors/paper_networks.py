"""The networks of Appendix H.1 of the paper, for its kernel VAEs of 7×7 and of 5×5 kernels.

They compute the same numbers as the printed modules, with the same parameter names, but several times faster on a CPU:
activations are channels-last, a transposed convolution of one pixel is one matrix product, both heads are one
convolution, and the ELU works in place without ``expm1``, which takes longer there than all convolutions together.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.priors.base import KernelShape

LOG2_E = math.log2(math.e)
_Layer = nn.Conv2d | nn.ConvTranspose2d
_Bodies = tuple[Sequence[_Layer], Sequence[_Layer]]


def paper_networks(kernel_shape: KernelShape, latent_dim: int) -> tuple[nn.Module, nn.Module]:
    """Returns the encoder and the decoder of Appendix H.1; each maps flat vectors to two tensors of flat vectors.

    Args:
        kernel_shape: ``(1, 7, 7)`` or ``(1, 5, 5)``.
        latent_dim: Dimensions of z; 2 for 7×7 and 4 for 5×5 in the paper.

    Raises:
        ValueError: The paper has no networks for this shape.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """
    bodies = _BODIES.get(kernel_shape)
    if bodies is None:
        raise ValueError(
            f"the paper has networks for kernels (1, 7, 7) and (1, 5, 5); got {kernel_shape}: use network='dense'"
        )
    encoder, decoder = bodies(latent_dim)
    return _Convolutional(kernel_shape, encoder, latent_dim), _Convolutional((latent_dim, 1, 1), decoder, 1)


class _Convolutional(nn.Module):
    """Convolutions with ELUs and two 1×1 heads: maps ``(n, d)`` to two tensors ``(n, outputs)``."""

    def __init__(self, shape: KernelShape, layers: Sequence[_Layer], head_outputs: int) -> None:
        super().__init__()
        self.shape = shape
        self.body = nn.Sequential(*(module for layer in layers for module in (layer, InPlaceELU())))
        self.fc_mu = nn.Conv2d(layers[-1].out_channels, head_outputs, 1)
        self.fc_var = nn.Conv2d(layers[-1].out_channels, head_outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
        hidden = x.reshape(-1, *self.shape)
        for layer in self.body:
            hidden = cast(Tensor, layer(hidden)).contiguous(memory_format=layout)
        weight = torch.cat([self.fc_mu.weight, self.fc_var.weight])
        bias = torch.cat([cast(Tensor, head.bias) for head in (self.fc_mu, self.fc_var)])
        loc, raw = F.conv2d(hidden, weight, bias).chunk(2, dim=1)
        return loc.flatten(1), raw.flatten(1)


class _PixelConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of a single pixel, ``(n, in, 1, 1)`` to ``(n, out, k, k)``, as one matrix product."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        inputs, outputs, height, width = self.weight.shape
        weight = self.weight.permute(0, 2, 3, 1).reshape(inputs, -1)
        pixels = (input.flatten(1) @ weight).view(-1, height, width, outputs)
        return pixels.add_(cast(Tensor, self.bias)).permute(0, 3, 1, 2)


class InPlaceELU(nn.Module):
    """Overwrites its input with max(x, exp(min(x, 0)) - 1); nothing else may read that input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32:
            found: Tensor = _FastELU.apply(x)
            return found
        return F.elu(x, inplace=True)


class _FastELU(torch.autograd.Function):
    """Computes max(x, 2^(min(x, 0) · log₂ e) - 1) in place."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.maximum(x, x.clamp(max=0).mul_(LOG2_E).exp2_().sub_(1), out=x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_dirty(*inputs)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        output: Tensor
        (output,) = ctx.saved_tensors
        return gradients[0] * (output.clamp(max=0) + 1)


def _bodies_7x7(latent_dim: int) -> _Bodies:
    encoder = [nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3)]
    decoder = [
        _PixelConvTranspose2d(latent_dim, 64, 3),
        nn.ConvTranspose2d(64, 64, 3),
        nn.ConvTranspose2d(64, 32, 3),
    ]
    return encoder, decoder


def _bodies_5x5(latent_dim: int) -> _Bodies:
    encoder = [
        nn.Conv2d(1, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(128, 128, 3),
    ]
    decoder: list[_Layer] = [
        nn.Conv2d(latent_dim, 128, 1),
        _PixelConvTranspose2d(128, 128, 3),
        nn.ConvTranspose2d(128, 128, 3),
        nn.Conv2d(128, 64, 1),
    ]
    return encoder, decoder


_BODIES: dict[KernelShape, Callable[[int], _Bodies]] = {(1, 7, 7): _bodies_7x7, (1, 5, 5): _bodies_5x5}
