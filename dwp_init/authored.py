"""What a model's author set up on purpose, and what apply_ therefore leaves as it is."""

import math

import torch
from torch import Tensor, nn

from dwp_init.layers import Layer
from dwp_init.shards import whole

_PART = 2**16  # weights whose scale is looked at
_SAMPLE = 32  # output and input channels whose kernels are compared


def reason_to_leave(layer: Layer) -> str | None:
    """Says why a layer stays as it is unless the caller names it; ``None`` if it may be drawn.

    Args:
        layer: A layer whose weight can be read.
    """
    tensors = layer.weight.tensors
    if not any(tensor.requires_grad for tensor in tensors):
        return _stays("its weight is frozen (requires_grad is False), as one that is pretrained")
    if isinstance(getattr(layer.module, "gain", None), nn.Parameter):  # as in timm's ScaledStdConv2d
        return _stays("its forward pass standardises the weight, so its response cannot be kept")
    weight = layer.weight.read()
    if _all_zero(weight) or _all_zero(whole(tensors[-1])):
        return _stays("its weight is all zero, as its author left it")
    if _most_repeat(weight, layer.size.numel()):
        return _stays("most of its kernels are copies of others, as after dirac_, ICNR or bilinear upsampling")
    return None


def is_untouched(layer: Layer) -> bool:
    """Whether a weight is from the distribution with which PyTorch's convolutions start, so that no author chose it.

    This is U(-b, b) with b = 1 / √fan_in.
    """
    weight = layer.weight.read()
    sample = weight[: max(_PART // weight[0].numel(), 1)].float() * math.sqrt(layer.torch_fan_in)
    error = math.sqrt(0.2 / sample.numel())  # relative standard error of the root mean square, 1 / √3
    found = sample.square().mean().sqrt().item() * math.sqrt(3)
    return sample.abs().max().item() < 1.001 and abs(found - 1) < 5 * error


def _stays(reason: str) -> str:
    return f"{reason}; to draw it, give its exact name in layers="


def _all_zero(weight: Tensor) -> bool:
    """Whether a tensor is zero; most are not, which their first values show."""
    return not ((weight.dim() and weight[:1].any()) or weight.any())


def _most_repeat(weight: Tensor, dim: int) -> bool:
    """Whether at least half of the kernels, of ``dim`` numbers each, equal another one; looks at the first channels."""
    first = weight[:_SAMPLE]
    kernels = first.reshape(len(first), -1, dim)[:, :_SAMPLE].flatten(0, 1).float()
    taps = (kernels[:, tap] for tap in range(dim))
    few = (len(torch.unique(tap)) * 2 <= len(kernels) for tap in taps)  # the first tap alone shows that most differ
    return len(kernels) > 1 and all(few) and 2 * len(torch.unique(kernels, dim=0)) <= len(kernels)
