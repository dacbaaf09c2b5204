"""What a network is like at the start: ranks and scales of its activations."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.starts.base import spatial_convolutions


def channel_rank(network: nn.Module, images: Tensor) -> list[float]:
    """Returns the effective rank of the channels after each spatial convolution, in the order in which they are called.

    It is exp(-Σ p log p), where p are the eigenvalues of the channels' covariance over images and positions, divided by
    their sum (Roy & Vetterli 2007): c where c channels are uncorrelated and of one variance, 1 where all are one
    channel, 0 where all are constant. The network's mode counts, and nothing of it changes.
    """
    return _after_each(network, images, effective_rank)


def activation_scale(network: nn.Module, images: Tensor) -> list[float]:
    """Returns the root mean square √E[y²] after each spatial convolution, biases included, in the order of calls."""
    return _after_each(network, images, lambda y: y.square().mean().sqrt().item())


def effective_rank(activations: Tensor) -> float:
    """Returns exp of the entropy of the eigenvalues of the channels' covariance, of activations ``(n, c, h, w)``.

    It is 0 where all are constant, and where any is not finite.
    """
    flat = activations.double().transpose(0, 1).flatten(1)
    if not flat.isfinite().all():
        return 0.0
    eigenvalues = torch.linalg.eigvalsh(flat.cov().reshape(len(flat), -1)).clamp_min(0)
    if eigenvalues.sum() == 0:
        return 0.0
    return float(torch.special.entr(eigenvalues / eigenvalues.sum()).sum().exp())


@torch.no_grad()
def _after_each(network: nn.Module, images: Tensor, measure: Callable[[Tensor], float]) -> list[float]:
    found: list[float] = []
    trial = copy.deepcopy(network)
    for layer in spatial_convolutions(trial).values():
        layer.register_forward_hook(lambda module, inputs, output: found.append(measure(output)))
    trial(images)
    return found
