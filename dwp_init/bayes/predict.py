"""Predictions of a posterior, and how sure they are."""

import torch
from torch import Tensor, nn

from dwp_init.bayes.convert import sample_network
from dwp_init.bayes.objective import logits_of
from dwp_init.priors.checks import check_count
from dwp_init.split import split


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Maps images ``(n, c, h, w)`` to probabilities ``(n, classes)``, with the network in evaluation mode.

    A Bayesian network predicts with its mean weights. The modes of the network's modules are restored afterwards. The
    probabilities are in float32 at least.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> bayes.predict(network, torch.randn(6, 1, 28, 28)).shape
        torch.Size([6, 2])
    """
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        return torch.cat([logits_of(network, part).softmax(1) for part in split(images, batch_size)])
    finally:
        for module, mode in modes.items():
            module.training = mode


def predict_samples(
    network: nn.Module,
    images: Tensor,
    samples: int = 10,
    generator: torch.Generator | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Maps images ``(n, c, h, w)`` to probabilities ``(samples, n, classes)`` of networks drawn from the posterior.

    Their mean over the first dimension is the ensemble's prediction.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> priors = bayes.bayesianize_(network)
        >>> samples = bayes.predict_samples(network, torch.randn(6, 1, 28, 28), samples=4)
        >>> samples.shape, samples.mean(0).shape
        (torch.Size([4, 6, 2]), torch.Size([6, 2]))
    """
    check_count(samples=samples)
    return torch.stack([predict(sample_network(network, generator), images, batch_size) for _ in range(samples)])


def predictive_entropy(probabilities: Tensor) -> Tensor:
    """Returns how unsure predictions ``(..., classes)`` are: their entropies ``(...)``, in nats.

    That of the mean of :func:`predict_samples` over the samples is the whole uncertainty. The mean of the entropies of
    the samples is the part that more training data would leave; the difference is the samples' disagreement.

    Examples:
        >>> bayes.predictive_entropy(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
        tensor([0.6931, 0.3251])
    """
    return -torch.xlogy(probabilities, probabilities).sum(-1)
