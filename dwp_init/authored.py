"""What a model's author set up on purpose, and what apply_ therefore leaves as it is."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dwp_init.layers import Layer
from dwp_init.rescaled import is_rescaled
from dwp_init.shards import whole

_PART = 2**16  # weights whose scale is looked at
_SAMPLE = 32  # neighbouring output channels, and evenly spaced input channels, whose kernels are compared
_ROUNDING = 1e-3  # relative error of a weight in float32, also one that was in float16 before or is computed
_TELLING = 64  # weights of which the law can be told
_LARGEST = 10  # the largest of n uniform weights is less than 1 - 10 / n once in 22,000 layers
_FIRST, _TAPS = 64, 25  # kernels, and taps of each, that are compared with each other
_ENOUGH = 4  # zeros next to each other that no random weight has, also with the few bits of bfloat16
_FAR = 8  # how many times the others' root mean square the weight is of an input that is passed on; random ones reach 5


def reason_to_leave(layer: Layer, sharing: Iterable[Layer], is_drawn: Callable[[], bool]) -> str | None:
    """Says why a layer stays as it is unless the caller names it; ``None`` if it may be drawn.

    Args:
        layer: A layer whose weight can be read.
        sharing: The layers that share memory with it.
        is_drawn: Whether the weight is one that an earlier call drew; asked if it looks as if made by hand.
    """
    reason = _tied_to(sharing) or _reason_of_training(layer)
    if reason is None:
        weight = layer.weight.read()
        reason = _reason_of_zeros(layer, weight) or _reason_of_scale(layer, weight)
        reason = reason or _reason_of_kernels(layer, weight, is_drawn)
    where = "its exact name in layers=" if layer.name else "layers='', the name of the model itself"
    return f"{reason}; to draw it, give {where}" if reason else None


def _tied_to(sharing: Iterable[Layer]) -> str | None:
    """Says which module without kernels has the weight too, such as an embedding; ``None`` if there is none."""
    other = next((layer for layer in sharing if not layer.is_convolution), None)
    return None if other is None else f"shares its memory with {other.label}, which is no convolution"


def _reason_of_training(layer: Layer) -> str | None:
    if not any(tensor.requires_grad for tensor in layer.weight.tensors):
        return "its weight is frozen (requires_grad is False), as one that is pretrained"
    return None


def _reason_of_zeros(layer: Layer, weight: Tensor) -> str | None:
    if _all_zero(weight) or _all_zero(whole(layer.weight.tensors[-1])):
        return "its weight is all zero, as its author left it"
    return None


def _reason_of_scale(layer: Layer, weight: Tensor) -> str | None:
    if is_rescaled(layer, weight):  # smooth kernels of the same norm have a larger response than white noise
        return (
            "its weight is rescaled in the forward pass, as by spectral_norm or weight standardisation, so its "
            "response cannot be kept"
        )
    return None


def _reason_of_kernels(layer: Layer, weight: Tensor, is_drawn: Callable[[], bool]) -> str | None:
    """Says why kernels of a layer look as if made by hand; ``None`` if they do not, or are an earlier draw."""
    blocks = _some_kernels(weight, layer.size.numel())
    reason = None
    if _in_most(_most_repeat, blocks):
        reason = "most of its kernels are copies of others, as after dirac_, another apply_, ICNR or upsampling"
    elif weight.dtype.itemsize > 1 and _in_most(_most_have_few_values, blocks):
        reason = "most of its kernels have few different values, as filters made by hand, such as blur or Sobel"
    elif _some_are_zero(layer, weight):
        reason = "some of its outputs, inputs, kernels or taps are zero, as its author left them"
    elif _most_pass_on(layer, weight):
        reason = "most of its outputs are one of its inputs and little else, as an identity with noise"
    return None if reason and is_drawn() else reason


def is_untouched(layer: Layer) -> bool:
    """Whether a weight is from the distribution with which PyTorch's convolutions start, so that no author chose it.

    This is U(-b, b) with b = 1 / √fan_in, rounded to the dtype of the weight. Xavier's is the same law
    in layers of 5 times as many outputs as inputs, and near it in others, which their largest weight tells. A few
    weights may be anything.
    """
    weight = layer.weight.read()
    if weight.numel() < _TELLING:
        return False
    rounding = max(2 * torch.finfo(weight.dtype).eps, _ROUNDING)  # weight normalisation rounds twice
    sample = weight[: max(_PART // weight[0].numel(), 1)].float() * math.sqrt(layer.torch_fan_in)
    error = math.sqrt(0.2 / sample.numel())  # relative standard error of the root mean square, 1 / √3
    found = sample.square().mean().sqrt().item() * math.sqrt(3)
    least = 1 - _LARGEST / sample.numel()
    return least - rounding < sample.abs().max().item() < 1 + rounding and abs(found - 1) < 5 * error


def _all_zero(weight: Tensor) -> bool:
    """Whether a tensor is zero; most are not, which their first values show."""
    return not ((weight.dim() and weight[:1].any()) or weight.any())


def _some_kernels(weight: Tensor, dim: int) -> list[Tensor]:
    """Returns kernels, of ``dim`` numbers each, of the first, middle and last channels, each ``(n, dim)``, in float32.

    Neighbours are compared because filters are often copied to the next ones, as by ICNR.
    """
    last = max(len(weight) - _SAMPLE, 0)
    blocks = [weight[start : start + _SAMPLE] for start in sorted({0, last // 2, last})]
    rows = [block.reshape(len(block), -1, dim) for block in blocks]
    return [each[:, :: max(each.shape[1] // _SAMPLE, 1)][:, :_SAMPLE].flatten(0, 1).float() for each in rows]


def _in_most(holds: Callable[[Tensor], bool], blocks: list[Tensor]) -> bool:
    return 2 * sum(map(holds, blocks)) > len(blocks)


def _some_are_zero(layer: Layer, weight: Tensor) -> bool:
    """Whether all weights of an output, an input, a kernel or a tap are zero, which is no accident."""
    weight = weight.float() if weight.dtype.itemsize == 1 else weight  # torch counts nothing in eight bits
    if weight.count_nonzero() == weight.numel():
        return False
    there = (layer.filters(weight) != 0).flatten(2)  # (outputs, inputs, taps)
    slices = ((1, 2), (0, 2), (2,), (0, 1))  # an output, an input, a kernel, a tap
    large = [dims for dims in slices if math.prod(there.shape[dim] for dim in dims) >= _ENOUGH]
    return any(not there.any(dims).all() for dims in large)


def _most_pass_on(layer: Layer, weight: Tensor) -> bool:
    """Whether in most of the outputs the weight in the middle of one kernel is far larger than all others.

    In depthwise layers that is no sign: filters of trained ones are like that, and so are draws of these.
    """
    if layer.inputs == 1:
        return False
    filters = layer.filters(weight)
    some = filters[:: max(len(filters) // _SAMPLE, 1)][:_SAMPLE].float().square()
    middle = some
    for size in layer.size:
        middle = middle.select(2, size // 2)
    middle = middle.amax(1)
    others = (some.flatten(1).sum(1) - middle) / (some[0].numel() - 1)
    return 2 * int((middle >= _FAR**2 * others).sum()) >= len(some)


def _most_repeat(kernels: Tensor) -> bool:
    """Whether at least half of some kernels equal another one."""
    taps = (kernels[:, tap] for tap in range(kernels.shape[1]))
    few = (len(torch.unique(tap)) * 2 <= len(kernels) for tap in taps)  # the first tap alone shows that most differ
    return len(kernels) > 1 and all(few) and 2 * len(torch.unique(kernels, dim=0)) <= len(kernels)


def _most_have_few_values(kernels: Tensor) -> bool:
    """Whether at least half of the kernels have at most two values to three taps; random ones in bfloat16 have more."""
    taps = kernels[:_FIRST, :_TAPS].sort(1).values
    different = 1 + (taps.diff(dim=1) != 0).sum(1)
    return 2 * int((3 * different <= 2 * taps.shape[1]).sum()) >= len(taps)
