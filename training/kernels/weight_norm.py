"""Weight normalisation in checkpoints: directions v and magnitudes g, from which the weight is g · v / ‖v‖."""

import torch
from torch import Tensor

_PAIRS = (("weight_v", "weight_g"), ("parametrizations.weight.original1", "parametrizations.weight.original0"))


def magnitudes_of(name: str) -> str:
    """Returns the name of the magnitudes of a weight-normed layer, by that of its directions; empty for others."""
    for directions, magnitudes in _PAIRS:
        if name == directions or name.endswith(f".{directions}"):
            return name.removesuffix(directions) + magnitudes
    return ""


def are_magnitudes(shape: tuple[int, ...], directions: tuple[int, ...]) -> bool:
    """Whether a tensor's shape is that of the magnitudes of directions: one number, or 1 along the axes of a norm."""
    if not shape:
        return True
    alike = len(shape) == len(directions) and all(a in (1, b) for a, b in zip(shape, directions, strict=True))
    return alike and 1 in shape


def normed_weight(directions: Tensor, magnitudes: Tensor) -> Tensor:
    """Returns the weight, in float32; the norm is over the axes along which the magnitudes have size 1."""
    axes = [axis for axis in range(directions.dim()) if magnitudes.dim() == 0 or magnitudes.shape[axis] == 1]
    directions = directions.float()
    norms: Tensor = torch.linalg.vector_norm(directions, dim=axes, keepdim=True)
    return magnitudes.float() * directions / norms
