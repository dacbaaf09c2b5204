"""Shards: tensors that are spread over processes (``DTensor``), which are read whole and written in parts."""

import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a ``DTensor``, such as the parameters of a model after ``fully_shard``."""
    module = sys.modules.get("torch.distributed.tensor")  # without it there are none, and its import takes 0.6 s
    return module is not None and isinstance(tensor, module.DTensor)


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor with the values of all processes, detached; every process that holds a part must call it."""
    return tensor.full_tensor().detach() if is_sharded(tensor) else tensor.detach()


@torch.no_grad()
def own_part(tensor: Tensor) -> Tensor:
    """Returns what this process holds of a tensor, which is the tensor itself if it is not spread; shares memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


@torch.no_grad()
def part_like(value: Tensor, tensor: Tensor) -> Tensor:
    """Returns the part of a whole value that this process holds of a tensor, without asking other processes."""
    if not is_sharded(tensor):
        return value
    from torch.distributed.tensor import DTensor, Replicate

    mesh = tensor.device_mesh
    everywhere = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=tensor.placements).to_local()


def reason_against_placement(tensor: Tensor) -> str | None:
    """Says why a tensor cannot be written in parts; ``None`` if it can."""
    if is_sharded(tensor) and any(placement.is_partial() for placement in tensor.placements):
        return "its processes hold summands of the weight (Partial): redistribute it to Replicate or Shard first"
    return None
