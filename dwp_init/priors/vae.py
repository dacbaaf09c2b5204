"""The kernel VAE: the deep weight prior of the paper (Eq. 6), with its printed networks and a cheaper dense one."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.priors.base import MAX_SIZE, KernelShape, Prior
from dwp_init.priors.whitening import LOG_2PI, Whitening, standard_normal_log_prob


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


class KernelVAE(Prior):
    """Describes kernels by p(w) = ∫ p(w|z) N(z; 0, I) dz, p(w|z) a factorised normal given by a decoder (Eq. 6).

    With ``whiten`` the networks see whitened kernels, so the decoder's noise has the kernels' own covariance and a
    decoder that ignores z is the full-covariance Gaussian: what the VAE learns comes on top of it.

    Args:
        kernel_shape: ``(c, k, k)``.
        network: ``dense``, two hidden layers each way, or ``paper``, the convolutional networks of Appendix H.1
            (one channel, 7×7 or 5×5).
        latent_dim: Dimensions of z; 2 for 7×7 and 4 for 5×5 in the paper.
        hidden: Width of the dense decoder's layers, 128 by default; the encoder's are twice as wide.
        dropout: In the dense encoder, while it is fitted.
        min_scale: Floor of the standard deviation of p(w|z), in the units that the networks see.
        whiten: Whether the networks see whitened kernels.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """

    family: ClassVar[str] = "vae"
    exact: ClassVar[bool] = False
    has_noise: ClassVar[bool] = True

    def __init__(
        self,
        kernel_shape: KernelShape,
        network: str = "dense",
        latent_dim: int = 16,
        hidden: int | None = None,
        dropout: float = 0.0,
        min_scale: float = 0.05,
        whiten: bool = True,
    ) -> None:
        super().__init__(kernel_shape)
        if network == "paper" and (hidden is not None or dropout):
            raise ValueError(f"the paper's network has no hidden={hidden} and dropout={dropout}; leave both out")
        hidden = 128 if hidden is None else hidden
        _check_count(latent_dim=latent_dim, hidden=hidden)
        _check_options(dropout, min_scale, whiten)
        self.network, self.latent_dim, self.hidden = network, latent_dim, hidden
        self.dropout, self.min_scale, self.whiten = dropout, float(min_scale), whiten
        self.whitening = Whitening(self.dim)
        self.encoder, self.decoder = _build_networks(network, self.kernel_shape, latent_dim, hidden, dropout)
        self.chunk = 4096 if network == "dense" else 1024

    def arguments(self) -> dict[str, Any]:
        own = {"hidden": self.hidden, "dropout": self.dropout} if self.network == "dense" else {}
        return {
            "network": self.network,
            "latent_dim": self.latent_dim,
            **own,
            "min_scale": self.min_scale,
            "whiten": self.whiten,
        }

    def encode(self, white: Tensor) -> Normal:
        """Maps whitened kernels ``(n, d)`` to r(z|w), each part ``(n, latent_dim)``."""
        loc, raw = self.encoder(white)
        return Normal(loc, (F.softplus(raw) + 1e-8).sqrt())

    def decode(self, z: Tensor) -> Normal:
        """Maps latents ``(n, latent_dim)`` to p(u|z) over whitened kernels, each part ``(n, d)``."""
        loc, raw = self.decoder(z)
        return Normal(loc, (F.softplus(raw) + self.min_scale**2).sqrt())

    def elbo(self, kernels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, k, k)`` to one-sample estimates of the evidence lower bound ``(n,)`` (Eq. 4).

        In nats per kernel; reparametrised, so differentiable in all parameters.
        """
        white = self.whitening(self._flatten(kernels))
        posterior = self.encode(white)
        noise = torch.randn(posterior.loc.shape, generator=generator, device=white.device, dtype=white.dtype)
        likelihood = self.decode(posterior.loc + posterior.scale * noise)
        return likelihood.log_prob(white) - posterior.kl_standard() - self.whitening.log_det()

    def importance_bound(self, kernels: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, k, k)`` to estimates of the importance-weighted bound on log p(w) ``(n,)``.

        The bound of Burda et al. (2016) with the encoder as the proposal, in nats per kernel; with one sample the
        evidence lower bound. Reparametrised, so differentiable in all parameters.

        Args:
            kernels: ``(n, c, k, k)``.
            samples: Latents per kernel.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
        """
        _check_count(samples=samples)
        white = self.whitening(self._flatten(kernels))
        return self._importance_bound(white, (self.encode(white),), samples, generator)

    def log_prob(self, kernels: Tensor, samples: int = 256, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, k, k)`` to a lower bound on log p(w) ``(n,)``, in nats per kernel.

        Importance sampling with ``samples`` latents per kernel (Burda et al. 2016): a lower bound in expectation,
        tight as ``samples`` grows. The proposal is the even mixture of the encoder, of the encoder at twice its scale
        and of p(z), which stays safe where the encoder is wrong about a kernel.

        Args:
            kernels: ``(n, c, k, k)``.
            samples: Latents per kernel.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
        """
        _check_count(samples=samples)
        white = self.whitening(self._flatten(kernels))
        parts = []
        for part in white.split(max(65_536 // samples, 1)):
            posterior = Normal(*map(torch.cat, zip(*map(self.encode, part.split(self._batch)), strict=True)))
            standard = Normal(torch.zeros_like(posterior.loc), torch.ones_like(posterior.scale))
            proposals = (posterior, Normal(posterior.loc, 2 * posterior.scale), standard)
            parts.append(self._importance_bound(part, proposals, samples, generator))
        return torch.cat(parts) if parts else white.new_zeros(0)

    def _importance_bound(
        self, white: Tensor, proposals: tuple[Normal, ...], samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Weighs latents of an even mixture of proposals, sample s from proposal s mod their number (stratified)."""
        which = torch.arange(samples, device=white.device) % len(proposals)
        loc, scale = (torch.stack(parts)[which] for parts in zip(*proposals, strict=True))
        noise = torch.randn(loc.shape, generator=generator, device=white.device, dtype=white.dtype)
        z = loc + scale * noise
        shares = torch.bincount(which, minlength=len(proposals)).to(white) / samples
        log_mixture = torch.stack([p.log_prob(z) for p in proposals]) + shares.log().view(-1, 1, 1)
        weights = self._likelihood(z, white) + standard_normal_log_prob(z) - log_mixture.logsumexp(0)
        return weights.logsumexp(0) - math.log(samples) - self.whitening.log_det()

    def _likelihood(self, z: Tensor, white: Tensor) -> Tensor:
        """Maps latents ``(samples, n, latent_dim)`` and whitened kernels ``(n, d)`` to log p(u|z) ``(samples, n)``."""
        latents = z.flatten(0, 1).split(self._batch)
        kernels = torch.arange(len(white), device=z.device).repeat(len(z)).split(self._batch)
        parts = [self.decode(z).log_prob(white[rows]) for z, rows in zip(latents, kernels, strict=True)]
        return torch.cat(parts).view(z.shape[:2])

    @property
    def _batch(self) -> int:
        """Latents or kernels that pass through a network at a time, which bounds the memory of :meth:`log_prob`."""
        if self.network == "paper":
            return self.chunk
        return max(16 * self.chunk * 128 // max(128, self.hidden, self.dim), 1)

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        options = {"generator": generator, "device": self.device, "dtype": self.dtype}
        likelihood = self.decode(torch.randn(n, self.latent_dim, **options))
        white = likelihood.loc
        if noise:
            white = torch.addcmul(white, likelihood.scale, torch.randn(white.shape, **options))
        return self.whitening.inverse(white)


class _Dense(nn.Module):
    """Two hidden layers and two heads: ``(n, inputs)`` to two of ``(n, outputs)``."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        first = (nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout))
        second = (nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.body = nn.Sequential(*first, *second)
        self.heads = nn.Linear(hidden, 2 * outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.heads(self.body(x)).chunk(2, dim=-1)
        return loc, raw


class _Convolutional(nn.Module):
    """A convolutional body and two 1×1 heads, between flat vectors: ``(n, d)`` to two of ``(n, outputs)``."""

    def __init__(self, shape: KernelShape, body: nn.Sequential, head_inputs: int, head_outputs: int) -> None:
        super().__init__()
        self.shape = shape
        self.body = body
        self.fc_mu = nn.Conv2d(head_inputs, head_outputs, 1)
        self.fc_var = nn.Conv2d(head_inputs, head_outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x.reshape(-1, *self.shape))
        return self.fc_mu(hidden).flatten(1), self.fc_var(hidden).flatten(1)


def _build_networks(
    network: str, shape: KernelShape, latent_dim: int, hidden: int, dropout: float
) -> tuple[nn.Module, nn.Module]:
    dim = math.prod(shape)
    if network == "dense":
        return _Dense(dim, 2 * hidden, latent_dim, dropout), _Dense(latent_dim, hidden, dim)
    if network != "paper":
        raise ValueError(f"network must be 'dense' or 'paper'; got {network!r}")
    if shape not in _PAPER_NETWORKS:
        raise ValueError(
            f"the paper has networks for kernels (1, 7, 7) and (1, 5, 5); got {shape}: use network='dense'"
        )
    return _PAPER_NETWORKS[shape](latent_dim)


def _paper_7x7(latent_dim: int) -> tuple[nn.Module, nn.Module]:
    encoder = _elu_sequence(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3))
    up = nn.ConvTranspose2d
    decoder = _elu_sequence(up(latent_dim, 64, 3), up(64, 64, 3), up(64, 32, 3))
    return _Convolutional((1, 7, 7), encoder, 64, latent_dim), _Convolutional((latent_dim, 1, 1), decoder, 32, 1)


def _paper_5x5(latent_dim: int) -> tuple[nn.Module, nn.Module]:
    encoder = _elu_sequence(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(128, 128, 3),
    )
    up = nn.ConvTranspose2d
    decoder = _elu_sequence(nn.Conv2d(latent_dim, 128, 1), up(128, 128, 3), up(128, 128, 3), nn.Conv2d(128, 64, 1))
    return _Convolutional((1, 5, 5), encoder, 128, latent_dim), _Convolutional((latent_dim, 1, 1), decoder, 64, 1)


_PAPER_NETWORKS = {(1, 7, 7): _paper_7x7, (1, 5, 5): _paper_5x5}


def _elu_sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ELU())))


def _check_count(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or not 1 <= count <= MAX_SIZE:
            raise ValueError(f"{name} must be a whole number from 1 to {MAX_SIZE}; got {count!r}")


def _check_options(dropout: float, min_scale: float, whiten: bool) -> None:
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number from 0 to below 1; got {dropout!r}")
    if type(min_scale) not in (int, float) or not 0 < min_scale < 1e6:
        raise ValueError(f"min_scale must be a number above 0 and below 1,000,000; got {min_scale!r}")
    if not isinstance(whiten, bool):
        raise ValueError(f"whiten must be True or False; got {whiten!r}")
