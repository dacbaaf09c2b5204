"""Divergences from learned priors: in closed form, by Monte Carlo, or an upper bound for priors with latents."""

import copy
from abc import abstractmethod
from typing import cast, get_args

import torch
from torch import Tensor, nn

from dwp_init import Gaussian, KernelVAE, PatchWhitening, Prior
from dwp_init.bayes.kl import KL, entropy
from dwp_init.options import check_one_of
from dwp_init.priors.checks import check_count
from dwp_init.priors.latent import Normal
from dwp_init.priors.vae import LatentProposal
from dwp_init.priors.whitening import LOG_2PI


class PriorKL(KL):
    """The base class of the terms of learned priors.

    Args:
        prior: The prior, of which a copy in evaluation mode with fixed parameters is kept.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.kernel_shape = prior.kernel_shape
        self.prior = copy.deepcopy(prior).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PriorKL":
        """Sets the training mode of all modules except the prior, whose density must not depend on the mode."""
        super().train(mode)
        self.prior.eval()
        return self


def _check_prior(term: str, wanted: str, prior: object, fits: bool) -> None:
    if not fits:
        raise TypeError(f"{term} needs {wanted}; got {type(prior).__name__}: see kl_from")


class GaussianKL(PriorKL):
    """KL from a :class:`dwp_init.Gaussian` of full covariance, in closed form (Appendix C)."""

    prior: Gaussian

    def __init__(self, prior: Gaussian) -> None:
        _check_prior("GaussianKL", "a Gaussian prior", prior, isinstance(cast(object, prior), Gaussian))
        super().__init__(prior)

    def forward(self, q: Normal) -> Tensor:
        whitening = self.prior.whitening
        distance: Tensor = whitening(q.loc.flatten(1)).square().sum(1)
        spread = q.scale.flatten(1).square() @ (whitening.basis / whitening.scale).square().sum(1)
        return 0.5 * (distance + spread + self.prior.dim * LOG_2PI) + whitening.log_det() - entropy(q)


class MonteCarloKL(PriorKL):
    """KL from any prior with an exact log p(w), estimated without bias from draws of q.

    Args:
        prior: The prior.
        samples: Draws per kernel.
    """

    def __init__(self, prior: Prior, samples: int = 1) -> None:
        exact = isinstance(cast(object, prior), Prior) and prior.exact
        _check_prior("MonteCarloKL", "a prior with an exact log p", prior, exact)
        check_count(samples=samples)
        super().__init__(prior)
        self.samples = samples

    def forward(self, q: Normal) -> Tensor:
        cross = sum((self.prior.log_prob(q.draw()) for _ in range(self.samples)), torch.zeros(())) / self.samples
        return -entropy(q) - cross


class LatentKL(PriorKL):
    """The base class of the upper bounds on KL from a prior defined through latents z, p(w) = ∫ p(w|z) p(z) dz.

    -H(q) - E_q of a lower bound on log p(w), H(q) in closed form.

    Args:
        prior: The prior. Its decoder and forward transitions stay fixed, and the reverse model r(z|w; ψ) starts as its
            encoder.
        samples: Draws of w per kernel, each with draws of z of its own.
        train_reverse: Whether r is trained with q, as in Algorithm 1, or stays the encoder, as in the authors' code.
    """

    prior: KernelVAE

    def __init__(self, prior: KernelVAE, samples: int = 1, train_reverse: bool = True) -> None:
        _check_prior(type(self).__name__, "a prior with latents", prior, isinstance(cast(object, prior), KernelVAE))
        check_count(samples=samples)
        super().__init__(prior)
        self.samples = samples
        for part in self.reverse:
            part.requires_grad_(train_reverse)

    @property
    def reverse(self) -> list[nn.Module]:
        """The networks of r(z|w; ψ)."""
        return [self.prior.encoder, *getattr(self.prior, "reverse_steps", ())]

    @abstractmethod
    def bound(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, k, k)`` to estimates of a lower bound on log p(w) ``(n,)``, in nats per kernel."""

    def forward(self, q: Normal) -> Tensor:
        bound = sum((self.bound(q.draw()) for _ in range(self.samples)), torch.zeros(())) / self.samples
        return -entropy(q) - bound


class AuxiliaryKL(LatentKL):
    """The bound of Algorithm 1, by a reverse model r(z|w; ψ) of the latents (Eq. 7, Appendix A).

    log p(w) ≥ E_r log p(w|z) - KL(r(z|w) ‖ p(z)) for a :class:`dwp_init.KernelVAE`, with KL(r ‖ p(z)) in closed form.
    For a :class:`dwp_init.KernelChain` all latents of the path are drawn. The bound on the divergence exceeds it by
    E_q KL(r(z|w) ‖ p(z|w)), so it is tighter the closer r is to the true posterior of the latents.
    """

    def bound(self, kernels: Tensor) -> Tensor:
        return self.prior.elbo(kernels)


class SemiImplicitKL(LatentKL):
    """The semi-implicit bound by K draws of z per kernel, as close to the divergence as K is large.

    log p(w) ≥ E log 1/K Σₖ p(w|zₖ) p(zₖ) / r(zₖ|w) with K independent zₖ, so the bound on the divergence falls in K
    towards it. q is explicit: only the prior needs a bound. With ``proposal="encoder"`` the zₖ are drawn from the
    reverse model, and K = 1 is Algorithm 1's bound (Sobolev & Vetrov 2019). With ``proposal="prior"`` they are drawn
    from p(z), as for the prior in doubly semi-implicit inference, without a reverse model (Molchanov et al. 2019): then
    a small gap takes K of the order of exp(KL(p(z|w) ‖ p(z))).

    Args:
        prior: As in :class:`LatentKL`.
        draws: K.
        proposal: What the zₖ are drawn from, ``"encoder"`` for r(z|w; ψ) or ``"prior"`` for p(z).
        samples: As in :class:`LatentKL`.
        train_reverse: As in :class:`LatentKL`; without effect on draws from p(z), for which there is no r to train.

    References:
        Yin & Zhou, Semi-Implicit Variational Inference, ICML 2018; Molchanov et al., Doubly Semi-Implicit Variational
        Inference, AISTATS 2019; Sobolev & Vetrov, Importance Weighted Hierarchical Variational Inference, NeurIPS 2019.
    """

    def __init__(
        self,
        prior: KernelVAE,
        draws: int = 10,
        proposal: LatentProposal = "encoder",
        *,
        samples: int = 1,
        train_reverse: bool = True,
    ) -> None:
        check_count(draws=draws)
        check_one_of("proposal", proposal, get_args(LatentProposal))
        super().__init__(prior, samples, train_reverse and proposal == "encoder")
        self.draws = draws
        self.proposal: LatentProposal = proposal

    def bound(self, kernels: Tensor) -> Tensor:
        return self.prior.importance_bound(kernels, self.draws, proposal=self.proposal)


def kl_from(prior: Prior, samples: int = 1, train_reverse: bool = True, draws: int | None = None) -> PriorKL:
    """Returns the best term for a prior: closed form, a bound for latents, else Monte Carlo.

    Args:
        prior: The prior.
        samples: Draws per kernel if there is no closed form.
        train_reverse: As in :class:`LatentKL`.
        draws: K of :class:`SemiImplicitKL`, for priors with latents; by default they take Algorithm 1's bound.

    Raises:
        TypeError: ``draws`` is given for a prior without latents, whose divergence needs no such bound.

    Examples:
        >>> bayes.kl_from(dwp_init.load_prior("notmnist-5x5-vae")).__class__.__name__
        'AuxiliaryKL'
        >>> term = bayes.kl_from(dwp_init.load_prior("notmnist-5x5"), samples=10)
        >>> layer = bayes.BayesConv2d(1, 8, 5)
        >>> term(layer.q).shape  # nats per kernel
        torch.Size([8])
    """
    if draws is not None:
        return SemiImplicitKL(cast(KernelVAE, prior), draws, samples=samples, train_reverse=train_reverse)
    if isinstance(prior, (Gaussian, PatchWhitening)):
        return GaussianKL(prior if isinstance(prior, Gaussian) else prior.gaussian())
    if isinstance(prior, KernelVAE):
        return AuxiliaryKL(prior, samples, train_reverse)
    return MonteCarloKL(prior, samples)
