"""Parts of latent-variable priors: conditional distributions, paths of latents, and log p by importance sampling."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dwp_init.priors.base import Estimate
from dwp_init.priors.whitening import LOG_2PI


class Normal(NamedTuple):
    """A factorised normal distribution; ``loc`` and ``scale`` (standard deviation) are ``(..., d)``."""

    loc: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density summed over the last dimension, in nats."""
        z = (value - self.loc) / self.scale
        return -0.5 * (z.square().sum(-1) + value.shape[-1] * LOG_2PI) - self.scale.log().sum(-1)

    def kl_standard(self) -> Tensor:
        """Returns KL(self ‖ N(0, I)) summed over the last dimension, in nats."""
        return 0.5 * (self.loc.square() + self.scale.square() - 1).sum(-1) - self.scale.log().sum(-1)

    def transform(self, noise: Tensor) -> Tensor:
        """Maps standard normal noise to draws, differentiably."""
        return self.loc + self.scale * noise

    def widened(self, factor: float) -> "Normal":
        """Returns the same with ``factor`` times the scale."""
        return Normal(self.loc, factor * self.scale)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws one value for each."""
        return self.transform(_randn(self.loc, generator))


class Proposal(Protocol):
    """A distribution over latents that importance sampling draws from: :class:`Normal` or :class:`Path`."""

    def transform(self, noise: Tensor) -> Tensor: ...
    def log_prob(self, value: Tensor) -> Tensor: ...
    def widened(self, factor: float) -> "Proposal": ...


Transition = Callable[[Tensor], Normal]


class Path:
    """The distribution of a Markov chain of latents, joined in one vector ``(..., (steps + 1) · latent_dim)``.

    Args:
        first: The distribution of the first latent, ``(n, latent_dim)``.
        steps: For each further latent, the map from the latent before it to its distribution.
        backward: Whether the vector holds the last latent first.
    """

    def __init__(self, first: Proposal, steps: Sequence[Transition], backward: bool = False) -> None:
        self.first, self.steps, self.backward = first, steps, backward

    def transform(self, noise: Tensor) -> Tensor:
        """Maps standard normal noise of a path's shape to paths, differentiably."""
        parts = self._split(noise)
        latents = [self.first.transform(parts[0])]
        for step, part in zip(self.steps, parts[1:], strict=True):
            latents.append(step(latents[-1]).transform(part))
        return torch.cat(latents[::-1] if self.backward else latents, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of paths, in nats."""
        parts = self._split(value)
        total = self.first.log_prob(parts[0])
        for step, before, after in zip(self.steps, parts, parts[1:], strict=False):
            total = total + step(before).log_prob(after)
        return total

    def widened(self, factor: float) -> "Path":
        """Returns the same chain with ``factor`` times the scale in every step."""
        steps = [_widened(step, factor) for step in self.steps]
        return Path(self.first.widened(factor), steps, self.backward)

    def _split(self, value: Tensor) -> list[Tensor]:
        parts = list(value.chunk(len(self.steps) + 1, -1))
        return parts[::-1] if self.backward else parts


def importance_weights(
    proposals: Sequence[Proposal],
    joint: Callable[[Tensor], Tensor],
    noise: Tensor,
) -> Tensor:
    """Draws latents from an even mixture of proposals and returns their importance weights.

    The draws are stratified: sample s comes from the proposal of index s modulo their number.

    Args:
        proposals: Distributions over the latents of n kernels.
        joint: Maps latents ``(samples, n, ·)`` to log p(w, z), ``(samples, n)``.
        noise: Standard normal, ``(samples, n, ·)``.

    Returns:
        log p(w, z) - log r(z), ``(samples, n)``, in nats. The mean of their exponentials is p(w).
    """
    shares = [noise[i :: len(proposals)] for i in range(len(proposals))]
    used = [(proposal, share) for proposal, share in zip(proposals, shares, strict=True) if len(share)]
    z = torch.cat([proposal.transform(share) for proposal, share in used])
    mixture = [proposal.log_prob(z) + math.log(len(share) / len(noise)) for proposal, share in used]
    return joint(z) - torch.stack(mixture).logsumexp(0)


def average(weights: Tensor) -> Estimate:
    """Returns the log of the mean of exponentials over the first dimension, and its error by the delta method."""
    samples = len(weights)
    found = weights.logsumexp(0) - math.log(samples)
    relative = (weights.detach() - found.detach()).exp()
    spread = relative.std(0) if samples > 1 and relative.numel() else torch.full_like(found, math.inf)
    return Estimate(found, spread / math.sqrt(samples))


def _widened(step: Transition, factor: float) -> Transition:
    return lambda z: step(z).widened(factor)


def _randn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
