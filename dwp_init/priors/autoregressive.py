"""An autoregressive density: each weight given those before it in raster order, as in PixelCNN."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.checks import check_count, check_dropout
from dwp_init.priors.whitening import LOG_2PI, RasterWhitening


@register
class Autoregressive(Prior):
    """Describes kernels by p(w) = ∏ᵢ p(wᵢ | w₁ … wᵢ₋₁) in raster order, each factor a mixture of normals.

    The raster order is PixelCNN's (van den Oord et al. 2016). A kernel is smaller than the receptive field of a
    PixelCNN, so the context goes through dense layers whose weights are shared by all positions, as in the real-valued
    neural autoregressive density estimator (Uria et al. 2013). The networks model the innovations of the kernels'
    covariance, i.e. each weight minus its linear prediction, so its networks learn only what a Gaussian misses.

    Args:
        kernel_shape: ``(c, *size)``; channels come one after the other.
        hidden: Width of the first layer; the second is half as wide.
        mixtures: Number of normals in each factor.
        dropout: Share of units dropped in both layers, while fitting.

    References:
        van den Oord et al., Conditional Image Generation with PixelCNN Decoders, NeurIPS 2016; Uria et al., RNADE: The
        Real-valued Neural Autoregressive Density-Estimator, NeurIPS 2013.
    """

    family: ClassVar[str] = "autoregressive"
    exact: ClassVar[bool] = True

    def __init__(self, kernel_shape: KernelShape, hidden: int = 128, mixtures: int = 4, dropout: float = 0.0) -> None:
        super().__init__(kernel_shape)
        check_count(hidden=hidden, mixtures=mixtures)
        check_dropout(dropout)
        self.hidden, self.mixtures, self.dropout = hidden, mixtures, dropout
        half, dim = max(hidden // 2, 1), self.dim
        self.whitening = RasterWhitening(dim)
        self.context = nn.Parameter(torch.randn(dim, hidden) / dim**0.5)
        self.context_bias = nn.Parameter(torch.zeros(dim, hidden))
        self.layer = nn.Linear(hidden, half)
        self.layer_bias = nn.Parameter(torch.zeros(dim, half))
        self.head = nn.Parameter(torch.zeros(dim, half, 3 * mixtures))
        spread = torch.linspace(-1, 1, mixtures) if mixtures > 1 else torch.zeros(1)
        start = torch.cat([torch.zeros(mixtures), spread, torch.full((mixtures,), 0.5)])
        self.head_bias = nn.Parameter(start.repeat(dim, 1))

    def arguments(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "mixtures": self.mixtures, "dropout": self.dropout}

    def describe(self) -> str:
        return (
            f"An autoregressive density, weight by weight, of {self.mixtures} normals each, {self.hidden} wide, on "
            f"whitened kernels. {self.describe_size()}"
        )

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel.

        In training mode units are dropped, as the fit does, so that values are random and no log p of the prior.
        """
        white: Tensor = self.whitening(self._flatten(kernels))
        if not len(white):
            return white.new_zeros(0)
        parts = torch.split(white, max(2**24 // (self.dim * self.hidden), 1))
        return torch.cat([self._log_prob(part) for part in parts]) - self.whitening.log_det()

    def _log_prob(self, innovations: Tensor) -> Tensor:
        """Maps innovations ``(n, d)`` to their log density ``(n,)``, in nats."""
        contexts = (innovations[:, :, None] * self.context).cumsum(1)
        before = torch.cat([torch.zeros_like(contexts[:, :1]), contexts[:, :-1]], 1)
        logits, loc, scale = self._factor(before, slice(None))
        z = (innovations[..., None] - loc) / scale
        parts = logits.log_softmax(-1) - 0.5 * (z.square() + LOG_2PI) - scale.log()
        return parts.logsumexp(-1).sum(1)

    def _factor(self, before: Tensor, positions: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Maps summed contexts ``(n, positions, hidden)`` to logits, means and scales, ``(n, positions, mixtures)``."""
        hidden = F.dropout(F.elu(before + self.context_bias[positions]), self.dropout, self.training)
        hidden = F.dropout(F.elu(self.layer(hidden) + self.layer_bias[positions]), self.dropout, self.training)
        found = torch.einsum("nph,phm->npm", hidden, self.head[positions]) + self.head_bias[positions]
        logits, loc, raw = found.chunk(3, -1)
        return logits, loc, F.softplus(raw) + 0.05

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        shape = (self.dim, n)
        uniform = torch.rand(shape, generator=generator, device=self.device, dtype=self.dtype)
        normal = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        before = torch.zeros(n, 1, self.hidden, device=self.device, dtype=self.dtype)
        innovations = torch.empty(n, self.dim, device=self.device, dtype=self.dtype)
        for i in range(self.dim):
            logits, loc, scale = (part[:, 0] for part in self._factor(before, slice(i, i + 1)))
            below = logits.softmax(-1).cumsum(-1) < uniform[i, :, None]
            picked = below.sum(-1, keepdim=True).clamp_max(self.mixtures - 1)
            drawn = loc.gather(1, picked)[:, 0] + scale.gather(1, picked)[:, 0] * normal[i]
            innovations[:, i] = drawn
            before += drawn[:, None, None] * self.context[i]
        return self.whitening.inverse(innovations)
