"""Tensors: which of them have values, and which can be written."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy

from dwp_init.shards import is_sharded, reason_against_placement


def is_virtual(module: nn.Module) -> bool:
    """Whether a module has tensors of its own or below it, but none has values: on the meta device, or FakeTensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return bool(tensors) and all(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors)


def is_loading(tensor: Tensor) -> bool:
    """Whether transformers loads a checkpoint now, and keeps even ``torch.nn.init`` from this tensor of it."""
    guarded = torch.nn.init.kaiming_normal_.__module__ != "torch.nn.init"
    return guarded and getattr(tensor, "_is_hf_initialized", False)


def check_real() -> None:
    """Raises ``ValueError`` in a FakeTensorMode, where nothing has values."""
    if isinstance(torch.empty(0, device="cpu"), FakeTensor):
        raise ValueError("a FakeTensorMode is active, in which nothing can be drawn for weights with values; leave it")


def reason_against(tensor: Tensor) -> str | None:
    """Says why one of the tensors behind a weight cannot be written; ``None`` if it can."""
    if is_lazy(tensor):
        return "lazy: run a forward pass first, so that its shape is known"
    if isinstance(tensor, FakeTensor):
        return "a FakeTensor, without values: call apply_ outside FakeTensorMode"
    if tensor.is_meta:
        return "on the meta device: give it memory, with to_empty(device=...), and values as usual, first"
    if not tensor.is_floating_point():
        return f"its weight has dtype {tensor.dtype}: it must be a real floating-point type"
    if hasattr(tensor, "__tensor_flatten__") and not is_sharded(tensor):
        return f"its weight is a {type(tensor).__name__}, made of other tensors: call apply_ before it is quantized"
    if tensor.layout is torch.strided and _is_expanded(tensor):
        return "many of its weights are one number in memory, as after expand: give it memory of its own, with clone()"
    if is_loading(tensor):
        return "transformers has just loaded it from a checkpoint"
    if getattr(tensor, "_fsdp_flattened", False) and tensor.dim() == 1:
        return "flattened by FullyShardedDataParallel: call apply_ inside its summon_full_params(model)"
    return reason_against_placement(tensor)


def _is_expanded(tensor: Tensor) -> bool:
    """Whether steps along one of its axes stay at the same place in memory."""
    return any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns float32 for types of 8 and 16 bits, else the type itself: one for sums, squares and densities."""
    return dtype if dtype.itemsize > 2 else torch.float32


def wide(values: Tensor) -> Tensor:
    """Returns values in float32 where they are in half precision, differentiably."""
    return values.to(wide_dtype(values.dtype))


def exact(values: Tensor) -> Tensor:
    """Returns values in float64, differentiably; on the CPU if their device has no float64, as MPS has none."""
    return values.to("cpu" if values.device.type == "mps" else values.device, torch.float64)


def as_list(values: Tensor) -> Any:
    """Returns ``values.tolist()``, whose type torch does not declare."""
    return cast(Any, values).tolist()
