"""The kernel VAE: the deep weight prior of the paper (Eq. 6), with its printed networks and a cheaper dense one."""

import math
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.options import check_flag, check_one_of
from dwp_init.priors.base import Estimate, KernelShape, Prior, register
from dwp_init.priors.checks import check_count, check_dropout, check_positive
from dwp_init.priors.dense_networks import DenseNetwork
from dwp_init.priors.latent import Normal, Proposal, average, importance_weights
from dwp_init.priors.paper_networks import paper_networks
from dwp_init.priors.whitening import Whitening, standard_normal_log_prob

VAENetwork = Literal["dense", "paper"]
LatentProposal = Literal["encoder", "prior"]


@register
class KernelVAE(Prior):
    """Describes kernels by p(w) = ∫ p(w|z) N(z; 0, I) dz, p(w|z) a factorised normal given by a decoder (Eq. 6).

    With ``whiten`` the networks see whitened kernels, so the decoder's noise has the covariance of the kernels, and a
    decoder that ignores z is the full-covariance Gaussian. The VAE then learns only what that Gaussian misses.

    Args:
        kernel_shape: ``(c, *size)``.
        network: ``"dense"``, two hidden layers each way, or ``"paper"``, the convolutional networks of Appendix H.1
            (one channel, 7×7 or 5×5).
        latent_dim: Dimensions of z; 2 for 7×7 and 4 for 5×5 in the paper.
        hidden: Width of the dense decoder's layers, 128 by default; the encoder's are twice as wide.
        dropout: Share of units dropped in the dense encoder, while it is fitted.
        min_scale: Lower limit of the standard deviation of p(w|z), in the units that the networks see.
        whiten: Whether the networks see whitened kernels.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """

    family: ClassVar[str] = "vae"
    exact: ClassVar[bool] = False
    has_noise: ClassVar[bool] = True

    def __init__(
        self,
        kernel_shape: KernelShape,
        network: VAENetwork = "dense",
        latent_dim: int = 16,
        hidden: int | None = None,
        dropout: float = 0.0,
        min_scale: float = 0.05,
        whiten: bool = True,
    ) -> None:
        super().__init__(kernel_shape)
        check_one_of("network", network, get_args(VAENetwork))
        if network == "paper" and (hidden is not None or dropout):
            raise ValueError(f"the paper's network takes neither hidden={hidden} nor dropout={dropout}; drop both")
        hidden = 128 if hidden is None else hidden
        check_count(latent_dim=latent_dim, hidden=hidden)
        check_dropout(dropout)
        check_positive(min_scale=min_scale)
        if min_scale < 1e-6:
            raise ValueError(f"min_scale must be 1e-06 or more; got {min_scale!r}")
        check_flag("whiten", whiten)
        self.network: VAENetwork = network
        self.latent_dim, self.hidden = latent_dim, hidden
        self.dropout, self.min_scale, self.whiten = dropout, float(min_scale), whiten
        self.whitening = Whitening(self.dim)
        self.encoder, self.decoder = _build_networks(network, self.kernel_shape, latent_dim, hidden, dropout)
        self.chunk = 4096 if network == "dense" else 128

    def arguments(self) -> dict[str, Any]:
        own = {"hidden": self.hidden, "dropout": self.dropout} if self.network == "dense" else {}
        return {
            "network": self.network,
            "latent_dim": self.latent_dim,
            **own,
            "min_scale": self.min_scale,
            "whiten": self.whiten,
        }

    def describe(self) -> str:
        return f"A {self.describe_networks()}. {self.describe_size()}"

    def describe_networks(self) -> str:
        """Returns a clause on the auto-encoder: its networks, its latents and the kernels that it sees."""
        networks = (
            "the convolutional networks of the paper's Appendix H.1"
            if self.network == "paper"
            else f"two dense layers each way ({self.hidden} wide in the decoder)"
        )
        seen = "whitened" if self.whiten else "raw"
        return f"variational auto-encoder with {networks} and {self.latent_dim} latent dimensions, on {seen} kernels"

    def encode(self, white: Tensor) -> Normal:
        """Maps whitened kernels ``(n, d)`` to r(z|w), each part ``(n, latent_dim)``."""
        loc, raw = self.encoder(white)
        return Normal(loc, (F.softplus(raw) + 1e-8).sqrt())

    def decode(self, z: Tensor) -> Normal:
        """Maps latents ``(n, latent_dim)`` to p(u|z) over whitened kernels, each part ``(n, d)``."""
        loc, raw = self.decoder(z)
        return Normal(loc, (F.softplus(raw) + self.min_scale**2).sqrt())

    def elbo(self, kernels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to one-sample estimates of the evidence lower bound ``(n,)`` (Eq. 4).

        In nats per kernel; reparametrised, so differentiable in all parameters.
        """
        white: Tensor = self.whitening(self._flatten(kernels))
        posterior = self.encode(white)
        z = posterior.draw(generator)
        return self.decode(z).log_prob(white) - posterior.kl_standard() - self.whitening.log_det()

    def blind_elbo(self, kernels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to one-sample estimates ``(n,)`` of the bound with r(z|w) = p(z) (App. B)."""
        return self.importance_bound(kernels, 1, generator, proposal="prior")

    def importance_bound(
        self,
        kernels: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        *,
        proposal: LatentProposal = "encoder",
    ) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to estimates of the importance-weighted bound on log p(w) ``(n,)``.

        The bound of Burda et al. (2016), in nats per kernel. With one sample it is the evidence lower bound of the
        proposal. Its expectation rises with ``samples``. Reparametrised, so differentiable in all parameters.

        Args:
            kernels: ``(n, c, *size)``.
            samples: Number of latents per kernel.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
            proposal: What the latents are drawn from: ``"encoder"``, or ``"prior"`` for p(z), as in semi-implicit
                variational inference (Yin & Zhou 2018).
        """
        check_count(samples=samples)
        check_one_of("proposal", proposal, get_args(LatentProposal))
        white: Tensor = self.whitening(self._flatten(kernels))
        drawn_from = self._reverse(white) if proposal == "encoder" else self._prior(white)
        weights = self._weights(white, [drawn_from], samples, generator)
        return average(weights).log_prob - self.whitening.log_det()

    def log_prob(self, kernels: Tensor, samples: int = 256, generator: torch.Generator | None = None) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to a lower bound on log p(w) ``(n,)``, in nats per kernel.

        Equals ``estimate(...).log_prob``. Without a generator it draws from PyTorch's global one, so that values differ
        from call to call; in training mode the encoder drops units too.
        """
        return self.estimate(kernels, samples, generator).log_prob

    def estimate(self, kernels: Tensor, samples: int = 256, generator: torch.Generator | None = None) -> Estimate:
        """Bounds log p(w) of kernels ``(n, c, *size)`` from below by importance sampling (Burda et al. 2016).

        The estimate is a lower bound in expectation, and tight as ``samples`` grows. The proposal is the even mixture
        of the encoder, of the encoder at twice its scale and of p(z), which keeps the error small for kernels about
        which the encoder is wrong.

        Args:
            kernels: ``(n, c, *size)``.
            samples: Number of latents per kernel.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.

        Returns:
            The bound and its Monte Carlo standard error, each ``(n,)``, in nats per kernel.
        """
        check_count(samples=samples)
        white: Tensor = self.whitening(self._flatten(kernels))
        if not len(white):
            return Estimate(white.new_zeros(0), white.new_zeros(0))
        parts: list[Estimate] = []
        for part in torch.split(white, max(65_536 // samples, 1)):
            reverse = self._reverse(part)
            proposals = [reverse, reverse.widened(2.0), self._prior(part)]
            parts.append(average(self._weights(part, proposals, samples, generator)))
        found = torch.cat([part.log_prob for part in parts])
        return Estimate(found - self.whitening.log_det(), torch.cat([part.error for part in parts]))

    @torch.no_grad()
    def log_prob_by_quadrature(self, kernels: Tensor, points: int = 400, width: float = 6.0) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to log p(w) ``(n,)``, in nats per kernel, for one or two latents.

        Uses a Riemann sum on an even grid; a reference for :meth:`estimate`. It is accurate if p(z|w) is wider
        than the step of the grid, ``2 · width / (points - 1)``.

        Args:
            kernels: ``(n, c, *size)``.
            points: Number of grid points in each latent dimension.
            width: The grid covers ``[-width, width]`` in each latent dimension.

        Raises:
            ValueError: There are more than two latents.
        """
        check_count(points=points)
        check_positive(width=width)
        if points < 2:
            raise ValueError(f"points must be 2 or more; got {points}")
        if self.latent_dim > 2:
            raise ValueError(f"quadrature takes at most 2 latents; this prior has {self.latent_dim}: use estimate()")
        white: Tensor = self.whitening(self._flatten(kernels))
        axis = torch.linspace(-width, width, points, device=white.device, dtype=white.dtype)
        grid = torch.cartesian_prod(*[axis] * self.latent_dim).view(-1, self.latent_dim)
        total = white.new_full((len(white),), -math.inf)
        for z in torch.split(grid, max(2**22 // (max(len(white), 1) * self.dim), 1)):
            likelihood = Normal(*(part[:, None] for part in self.decode(z)))
            joint = likelihood.log_prob(white) + standard_normal_log_prob(z)[:, None]
            total = torch.logaddexp(total, joint.logsumexp(0))
        return total + self.latent_dim * (axis[1] - axis[0]).log() - self.whitening.log_det()

    def _reverse(self, white: Tensor) -> Proposal:
        """Returns r(z|w) of whitened kernels ``(n, d)``."""
        parts = [self.encode(part) for part in torch.split(white, self._batch)]
        return Normal(torch.cat([part.loc for part in parts]), torch.cat([part.scale for part in parts]))

    def _prior(self, white: Tensor) -> Proposal:
        """Returns p(z), for as many kernels as there are in ``white``."""
        zeros = white.new_zeros(len(white), self.latent_dim)
        return Normal(zeros, torch.ones_like(zeros))

    def _weights(
        self, white: Tensor, proposals: list[Proposal], samples: int, generator: torch.Generator | None
    ) -> Tensor:
        shape = (samples, len(white), self._latents)
        noise = torch.randn(shape, generator=generator, device=white.device, dtype=white.dtype)
        return importance_weights(proposals, lambda z: self._joint(z, white), noise)

    def _joint(self, z: Tensor, white: Tensor) -> Tensor:
        """Maps latents ``(samples, n, ·)`` and whitened kernels ``(n, d)`` to log p(u, z) ``(samples, n)``."""
        last = torch.split(z[..., : self.latent_dim].flatten(0, 1), self._batch)
        kernels = torch.split(torch.arange(len(white), device=z.device).repeat(len(z)), self._batch)
        parts = [self.decode(part).log_prob(white[rows]) for part, rows in zip(last, kernels, strict=True)]
        return torch.cat(parts).view(z.shape[:2]) + self._prior(white).log_prob(z)

    @property
    def _latents(self) -> int:
        """Number of latents of a kernel, those of a chain's earlier steps included."""
        return self.latent_dim

    @property
    def _batch(self) -> int:
        """Number of kernels that pass through a network at once, which bounds the memory of :meth:`estimate`."""
        if self.network == "paper":
            return self.chunk
        return max(16 * self.chunk * 128 // max(128, self.hidden, self.dim), 1)

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        likelihood = self.decode(self._draw_latent(n, generator))
        return self.whitening.inverse(likelihood.draw(generator) if noise else likelihood.loc)

    def _draw_latent(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(n, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)


def _build_networks(
    network: VAENetwork, shape: KernelShape, latent_dim: int, hidden: int, dropout: float
) -> tuple[nn.Module, nn.Module]:
    dim = math.prod(shape)
    if network == "dense":
        return DenseNetwork(dim, 2 * hidden, latent_dim, dropout), DenseNetwork(latent_dim, hidden, dim)
    return paper_networks(shape, latent_dim)
