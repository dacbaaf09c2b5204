"""The scales of a posterior: their start at the optimum of the bound, and what became of them in training."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dwp_init.bayes.kl import KL, entropy
from dwp_init.bayes.layers import SCALE, RelativeBayesConv2d, bayes_layers
from dwp_init.bayes.objective import Objective
from dwp_init.priors.checks import check_count, check_positive
from dwp_init.priors.latent import Normal

FARTHEST = 4.0  # factor by which a step changes a variance at most, where the bound is far from quadratic


class Spread(NamedTuple):
    """How wide a layer's posterior is.

    Attributes:
        layer: Name of the layer.
        scale: Geometric mean of the standard deviations of its weights.
        entropy: Differential entropy of its posterior, in nats per weight.
    """

    layer: str
    scale: float
    entropy: float


def optimal_scale(term: KL, kernels: Tensor, steps: int = 20) -> Tensor:
    """Returns the scale of a posterior around given kernels that is nearest to a prior, one for each of their values.

    It minimises the mean over kernels of KL(N(w, diag σ²) ‖ p), or of the bound on it, over σ shared by all kernels.
    At the optimum σᵢ² = 1 / E[-∂²log p(w) / ∂wᵢ²], the variance of a value given all others if p is Gaussian: 1 /
    (Σ⁻¹)ᵢᵢ, which one step finds. Other priors take several steps; where the term is drawn, more kernels lower the
    noise.

    Args:
        term: The divergence from the prior.
        kernels: Posterior means ``(n, c, k, k)``.
        steps: Number of Newton steps. A term without an optimum, as log-uniform ones, makes scales grow with them.

    Returns:
        Standard deviations ``(c, k, k)``.

    Raises:
        ValueError: The scales or their slopes become infinite or NaN.

    Examples:
        >>> kernels = torch.zeros(8, 1, 3, 3)
        >>> bayes.optimal_scale(bayes.NormalKL(scale=0.5), kernels)[0, 0]
        tensor([0.5000, 0.5000, 0.5000])
    """
    check_count(steps=steps)
    variance = torch.full_like(kernels[0], SCALE**2)
    for _ in range(steps):
        with torch.enable_grad():
            log_scale = (0.5 * variance.log()).requires_grad_()
            scale = log_scale.exp().expand_as(kernels)
            (slope,) = torch.autograd.grad(term(Normal(kernels.detach(), scale)).mean(), log_scale)
        variance = _newton(variance, slope)
        _check_finite(slope, variance)
    return variance.sqrt()


def start_at_optimal_scales_(
    objective: Objective, images: Tensor, labels: Tensor, *, temperature: float = 1.0, steps: int = 20
) -> None:
    """Sets the scales of an untrained posterior to the optimum of the bound around its means, in place.

    One scale for each tap of the kernels of a layer, shared by its channels: the σ² at which the entropy's pull to
    larger scales, one nat per weight and unit of log σ, and the curvatures of likelihood and prior balance. The
    temperature weighs the divergences, as in :class:`dwp_init.bayes.Schedule`; unless it is 1, this is the optimum of
    the tempered objective, which is no bound on the evidence. Layers of :class:`RelativeBayesConv2d`, whose scales
    follow the weights, and frozen scales stay as they are.

    Args:
        objective: The network and its divergences. Nothing but scales is changed.
        images: The training set ``(n, c, h, w)``, all of which pass through the network in every step; as they are,
            also if the objective is ``augmented``.
        labels: ``(n,)``.
        temperature: Weight of the divergences.
        steps: Number of Newton steps.

    Raises:
        ValueError: The bound or its slope is infinite or NaN. The scales are those of the last step before.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> priors = bayes.bayesianize_(network)
        >>> objective = bayes.Objective(network, priors.terms())
        >>> images, labels = torch.randn(20, 1, 28, 28), torch.arange(20) % 2
        >>> bayes.start_at_optimal_scales_(objective, images, labels)
        >>> network[0].log_variance.unique().numel() > 1  # one for each tap
        True
    """
    check_count(steps=steps)
    check_positive(temperature=temperature)
    layers = [layer for layer, _ in objective.pairs() if not isinstance(layer, RelativeBayesConv2d)]
    scales = [layer.log_variance for layer in layers if layer.log_variance.requires_grad]
    if not scales:
        return
    batch = images[:, None] if objective.augmented else images
    with _unchanged_state(objective), torch.enable_grad():
        objective.train()
        for _ in range(steps):
            terms = objective(batch, labels, len(labels))
            loss = terms.nll + temperature * terms.kl.sum()
            slopes = torch.autograd.grad(loss, scales)
            _check_finite(loss, *slopes)
            for log_variance, slope in zip(scales, slopes, strict=True):
                _step_(log_variance, 2 * slope / temperature)


def _check_finite(*found: Tensor) -> None:
    if not all(bool(each.isfinite().all()) for each in found):
        raise ValueError(
            "the bound or its slope in a scale is infinite or NaN: look at the images and the means, or the term has "
            "no optimum, as log-uniform ones may have none"
        )


@contextmanager
def _unchanged_state(module: nn.Module) -> Generator[None, None, None]:
    """Restores the training modes and buffers, such as the averages of batch norm, at the end."""
    modes = {each: each.training for each in module.modules()}
    buffers = [
        (each, name, buffer, buffer.clone()) for each in modes for name, buffer in each.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
        with torch.no_grad():
            for each, name, buffer, value in buffers:
                setattr(each, name, buffer)
                if not buffer.allclose(value, rtol=0, atol=0, equal_nan=True):
                    buffer.copy_(value)


def spreads(network: nn.Module) -> list[Spread]:
    """Returns how wide the posterior of each Bayesian layer of a network is.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model, scale=0.5)
        >>> [(found.layer, round(found.scale, 4)) for found in bayes.spreads(model)]
        [('0', 0.5)]
    """
    return [_spread(name, layer.wide_q) for name, layer in bayes_layers(network).items()]


@torch.no_grad()
def _spread(name: str, q: Normal) -> Spread:
    per_weight = entropy(q).sum() / q.scale.numel()
    return Spread(name, q.scale.log().mean().exp().item(), per_weight.item())


@torch.no_grad()
def _step_(log_variance: Tensor, slope: Tensor) -> None:
    """Takes a step of a layer ``(out, in, k, k)``, in common for all its channels.

    Args:
        log_variance: The layer's.
        slope: Derivative of the bound in each log σ, in units of the weight of the entropy.
    """
    variance = log_variance.exp().mean((0, 1))
    log_variance.copy_(_newton(variance, slope.mean((0, 1))).log().expand_as(log_variance))


def _newton(variance: Tensor, slope: Tensor) -> Tensor:
    """Returns 1 / curvature, where the slope of the bound in log σ is σ² · curvature - 1."""
    return variance / (1 + slope).clamp(1 / FARTHEST, FARTHEST)
