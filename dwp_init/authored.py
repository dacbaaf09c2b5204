"""What a model's author set up on purpose, and what apply_ therefore leaves as it is."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dwp_init.layers import Layer
from dwp_init.shards import whole

_PART = 2**16  # weights whose scale is looked at
_SAMPLE = 32  # output and input channels whose kernels are compared
_ROUNDING = 1e-3  # relative error of a weight in float32, also one that was in float16 before or is computed
_FIRST, _TAPS = 64, 25  # kernels, and taps of each, that are compared with each other


def reason_to_leave(layer: Layer, is_drawn: Callable[[], bool]) -> str | None:
    """Says why a layer stays as it is unless the caller names it; ``None`` if it may be drawn.

    Args:
        layer: A layer whose weight can be read.
        is_drawn: Whether the weight is one that an earlier call drew; asked if it looks as if made by hand.
    """
    reason = _reason(layer)
    if reason is None:
        weight = layer.weight.read()
        reason = _reason_of_zeros(layer, weight) or _reason_of_kernels(layer, weight, is_drawn)
    where = "its exact name in layers=" if layer.name else "layers='', the name of the model itself"
    return f"{reason}; to draw it, give {where}" if reason else None


def _reason(layer: Layer) -> str | None:
    """Says what the author of a layer set up, apart from its weight; ``None`` if nothing is known."""
    if not any(tensor.requires_grad for tensor in layer.weight.tensors):
        return "its weight is frozen (requires_grad is False), as one that is pretrained"
    if isinstance(getattr(layer.module, "gain", None), nn.Parameter):  # as in timm's ScaledStdConv2d
        return "its forward pass standardises the weight, so its response cannot be kept"
    return None


def _reason_of_zeros(layer: Layer, weight: Tensor) -> str | None:
    if _all_zero(weight) or _all_zero(whole(layer.weight.tensors[-1])):
        return "its weight is all zero, as its author left it"
    return None


def _reason_of_kernels(layer: Layer, weight: Tensor, is_drawn: Callable[[], bool]) -> str | None:
    """Says why the kernels of a layer look as if made by hand; ``None`` if they do not, or are an earlier draw."""
    kernels = _some_kernels(weight, layer.size.numel())
    reason = None
    if _most_repeat(kernels):
        reason = "most of its kernels are copies of others, as after dirac_, another apply_, ICNR or upsampling"
    elif weight.dtype.itemsize > 1 and _most_have_few_values(kernels):
        reason = "most of its kernels have few different values, as filters made by hand, such as blur or Sobel"
    return None if reason and is_drawn() else reason


def is_untouched(layer: Layer) -> bool:
    """Whether a weight is from the distribution with which PyTorch's convolutions start, so that no author chose it.

    This is U(-b, b) with b = 1 / √fan_in, rounded to the dtype of the weight.
    """
    weight = layer.weight.read()
    rounding = max(torch.finfo(weight.dtype).eps, _ROUNDING)
    sample = weight[: max(_PART // weight[0].numel(), 1)].float() * math.sqrt(layer.torch_fan_in)
    error = math.sqrt(0.2 / sample.numel())  # relative standard error of the root mean square, 1 / √3
    found = sample.square().mean().sqrt().item() * math.sqrt(3)
    return sample.abs().max().item() < 1 + rounding and abs(found - 1) < 5 * error


def _all_zero(weight: Tensor) -> bool:
    """Whether a tensor is zero; most are not, which their first values show."""
    return not ((weight.dim() and weight[:1].any()) or weight.any())


def _some_kernels(weight: Tensor, dim: int) -> Tensor:
    """Returns the kernels, of ``dim`` numbers each, between the first channels, ``(n, dim)``, in float32."""
    first = weight[:_SAMPLE]
    return first.reshape(len(first), -1, dim)[:, :_SAMPLE].flatten(0, 1).float()


def _most_repeat(kernels: Tensor) -> bool:
    """Whether at least half of the kernels equal another one."""
    taps = (kernels[:, tap] for tap in range(kernels.shape[1]))
    few = (len(torch.unique(tap)) * 2 <= len(kernels) for tap in taps)  # the first tap alone shows that most differ
    return len(kernels) > 1 and all(few) and 2 * len(torch.unique(kernels, dim=0)) <= len(kernels)


def _most_have_few_values(kernels: Tensor) -> bool:
    """Whether at least half of the kernels have at most two values to three taps; random ones in bfloat16 have more."""
    taps = kernels[:_FIRST, :_TAPS].sort(1).values
    different = 1 + (taps.diff(dim=1) != 0).sum(1)
    return 2 * int((3 * different <= 2 * taps.shape[1]).sum()) >= len(taps)
