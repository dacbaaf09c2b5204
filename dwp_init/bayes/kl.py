"""KL(q(w) ‖ p(w)) of kernels for every kind of prior, in nats per kernel, differentiable in q.

Each term maps q, whose parts are ``(n, c, k, k)``, to values ``(n,)``. They are exact if the class says so. Otherwise
they are an unbiased estimate of the divergence or, for a prior defined through latents, of an upper bound (Eq. 7).
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.bayes.layers import FLOOR, BayesConv2d, RelativeBayesConv2d
from dwp_init.priors.base import KernelShape
from dwp_init.priors.checks import check_positive
from dwp_init.priors.latent import Normal
from dwp_init.priors.precision import in_full_precision
from dwp_init.priors.whitening import LOG_2PI


class KL(nn.Module, ABC):
    """A divergence from a prior, the base class of all terms. ``torch.autocast`` has no effect in :meth:`forward`.

    Attributes:
        kernel_shape: ``(c, k, k)`` of the prior's kernels; ``None`` if the prior is for kernels of any shape.
    """

    kernel_shape: KernelShape | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        in_full_precision(cls, ("forward",))

    def extra_repr(self) -> str:
        """Returns the settings: what the term keeps besides tensors and modules."""
        given = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())

    @abstractmethod
    def forward(self, q: Normal) -> Tensor:
        """Maps q, each part ``(n, c, k, k)``, to nats per kernel ``(n,)``."""

    def fits(self, layer: BayesConv2d) -> bool:
        """Whether the prior is for a layer's kernels, and the estimate is valid for its posterior."""
        if self.kernel_shape is None:
            return True
        channels, *size = self.kernel_shape
        return tuple(size) == layer.kernel_size and layer.weight.shape[1] % channels == 0


class NormalKL(KL):
    """KL from N(0, scale² I), in closed form; ``scale=1`` is the standard normal prior.

    Args:
        scale: The prior's standard deviation of each weight.
        learn: Whether ``scale`` is trained together with the posterior, to maximise the bound (empirical Bayes).
        kernel_shape: ``(c, k, k)`` of the layers that the prior is for; all by default.
    """

    def __init__(self, scale: float = 1.0, learn: bool = False, kernel_shape: KernelShape | None = None) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.kernel_shape = kernel_shape
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn)

    def forward(self, q: Normal) -> Tensor:
        loc, scale = (part.flatten(1) / self.log_scale.exp() for part in q)
        return Normal(loc, scale).kl_standard()


class LogUniformKL(KL):
    """KL from p(log |w|) ∝ const by the sigmoid fit of Molchanov et al. (2017, Eq. 14), which vanishes as σ/|μ| grows.

    The fit is within 0.02 nats per weight of the integral, up to the constant that makes it vanish, because the prior
    is improper.
    """

    def forward(self, q: Normal) -> Tensor:
        log_alpha = 2 * (q.scale.flatten(1).log() - (q.loc.flatten(1).abs() + 1e-10).log())
        gain = 0.63576 * (1.87320 + 1.48695 * log_alpha).sigmoid()
        return (0.63576 - gain + 0.5 * F.softplus(-log_alpha)).sum(1)


class TruncatedLogUniformKL(KL):
    """KL from p(log |w|) ∝ const by the cubic fit of Kingma et al. (2015), valid for α = σ²/μ² ≤ 1.

    The fit is within 0.04 nats per weight of the integral, up to a constant that is left out, because the prior is
    improper. It is for :class:`dwp_init.bayes.RelativeBayesConv2d`, the posterior that keeps α ≤ 1.
    """

    def fits(self, layer: BayesConv2d) -> bool:
        return isinstance(layer, RelativeBayesConv2d)

    def forward(self, q: Normal) -> Tensor:
        alpha = (q.scale.flatten(1) / (q.loc.flatten(1).abs() + FLOOR)).square()
        cubic = 1.16145124 * alpha - 1.50204118 * alpha.square() + 0.58629921 * alpha**3
        return -(0.5 * alpha.log() + cubic).sum(1)


class ScaledKL(KL):
    """KL from the law of ``scale`` times the kernels of another term's prior.

    A divergence does not change if both its sides are scaled, so it is that of q / scale from the prior itself. For a
    density it is the same as KL from ``p(w / scale) / scale^d``.

    Args:
        term: The divergence from the prior.
        scale: Factor from the prior's kernels to those of the layer.
    """

    scale: Tensor

    def __init__(self, term: KL, scale: float) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.term, self.kernel_shape = term, term.kernel_shape
        tensors = (*term.parameters(), *term.buffers())
        like = next((each for each in tensors if each.is_floating_point()), torch.empty(0))
        self.register_buffer("scale", torch.full((), scale, dtype=like.dtype, device=like.device))

    def fits(self, layer: BayesConv2d) -> bool:
        return self.term.fits(layer)

    def forward(self, q: Normal) -> Tensor:
        found: Tensor = self.term(Normal(q.loc / self.scale, q.scale / self.scale))
        return found


def entropy(q: Normal) -> Tensor:
    """Returns H(q) of kernels, each part ``(n, c, k, k)``, in nats per kernel ``(n,)``."""
    scale = q.scale.flatten(1)
    return scale.log().sum(1) + 0.5 * scale.shape[1] * (1 + LOG_2PI)
