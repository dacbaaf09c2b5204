"""Hand-made state dicts whose kinds and depths are known."""

import torch
from torch import Tensor

State = dict[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> State:
    """Four layers in another order than their names', with what is no layer between them."""
    return {
        "block.10.conv.weight": normal(5, 4, 3, 3, seed=seed + 1),
        "block.2.conv.weight": 3 * normal(4, 6, 3, 3, seed=seed + 2),
        "block.3.depthwise.weight": normal(12, 1, 5, 5, seed=seed + 3),
        "stem.conv.weight": normal(16, 3, 7, 7, seed=seed + 4),
        "block.2.conv.bias": normal(4),
        "block.2.pointwise.weight": normal(4, 4, 1, 1),
        "head.weight": normal(10, 5),
    }
