import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions, nn

from dwp_init import Gaussian, GaussianMixture, KernelChain, KernelVAE, Prior
from dwp_init.bayes import (
    KL,
    AuxiliaryKL,
    GaussianKL,
    LogUniformKL,
    MonteCarloKL,
    NormalKL,
    PriorKL,
    SemiImplicitKL,
    TruncatedLogUniformKL,
    kl_from,
)
from dwp_init.bayes.kl import entropy
from dwp_init.priors.latent import Normal

SHAPE = (1, 2, 2)
DIM = 4


def posterior(n: int = 3, scale: float = 0.4, dtype: torch.dtype = torch.float64) -> Normal:
    generator = torch.Generator().manual_seed(3)
    loc = torch.randn(n, *SHAPE, generator=generator, dtype=dtype)
    return Normal(loc, scale * (0.2 * torch.randn(n, *SHAPE, generator=generator, dtype=dtype)).exp())


def law(q: Normal) -> distributions.Distribution:
    return distributions.Independent(distributions.Normal(*(part.flatten(1) for part in q)), 1)


def gaussian() -> Gaussian:
    mix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(5))
    kernels = 0.3 + torch.randn(200, DIM, generator=torch.Generator().manual_seed(6)) @ mix
    return Gaussian(SHAPE).double().fit_(kernels.view(-1, *SHAPE).double())


class Linear(nn.Module):
    """Heads of a normal distribution with an affine mean and a given variance, as :class:`KernelVAE` reads them."""

    def __init__(self, weight: Tensor, bias: Tensor, variance: Tensor, floor: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.raw = nn.Parameter((variance - floor).expm1().log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.weight.T + self.bias, self.raw.expand(len(x), -1)


def linear_vae(exact: bool = True) -> tuple[KernelVAE, distributions.MultivariateNormal]:
    """A VAE w = A z + b + noise, whose marginal is Gaussian, with the exact reverse model or one that is off.

    The true reverse model has a diagonal covariance where the columns of A are orthogonal under the noise.
    """
    vae = KernelVAE(SHAPE, latent_dim=2, min_scale=0.1, whiten=False).double()
    basis = torch.linalg.qr(torch.randn(DIM, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    map_, bias = basis * torch.tensor([1.5, 0.7], dtype=torch.float64), torch.full((DIM,), 0.2, dtype=torch.float64)
    noise = torch.full((DIM,), 0.3, dtype=torch.float64)  # a variance
    vae.decoder = Linear(map_, bias, noise, floor=0.1**2)
    variance = 1 / (1 + (map_**2 / noise[:, None]).sum(0))
    pull = variance[:, None] * map_.T / noise
    off = 0.0 if exact else 0.4
    vae.encoder = Linear(pull + off, -pull @ bias, variance + off, floor=1e-8)
    marginal = distributions.MultivariateNormal(bias, map_ @ map_.T + torch.diag(noise))
    return vae, marginal


def estimate(term: KL, q: Normal, draws: int = 4000) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        many = Normal(*(part.repeat(draws, 1, 1, 1) for part in q))
        values = term(many).view(draws, -1)
    return values.mean(0), values.std(0) / math.sqrt(draws)


def full(q: Normal, i: int) -> distributions.MultivariateNormal:
    return distributions.MultivariateNormal(q.loc[i].flatten(), torch.diag(q.scale[i].flatten().square()))


def test_the_bound_is_the_divergence_for_the_exact_reverse_model() -> None:
    vae, marginal = linear_vae()
    q = posterior()
    true = torch.stack([distributions.kl_divergence(full(q, i), marginal) for i in range(3)])
    value, error = estimate(AuxiliaryKL(vae), q)
    assert error.max() < 0.05 and ((value - true).abs() < 4 * error).all()


def test_the_bound_lies_above_for_any_other() -> None:
    """By the divergence of the reverse model from the true posterior of the latents."""
    vae, marginal = linear_vae(exact=False)
    exact = linear_vae()[0]
    q = posterior()
    true = torch.stack([distributions.kl_divergence(full(q, i), marginal) for i in range(3)])
    value, error = estimate(AuxiliaryKL(vae), q)
    torch.manual_seed(1)
    with torch.no_grad():
        drawn = Normal(*(part.repeat(4000, 1, 1, 1) for part in q)).draw().flatten(1)
        wrong, right = (
            distributions.Independent(distributions.Normal(*model.encode(drawn)), 1) for model in (vae, exact)
        )
        excess = distributions.kl_divergence(wrong, right).view(4000, -1).mean(0)
    assert (excess > 0.1).all() and ((value - true - excess).abs() < 0.05 * excess + 5 * error).all()


def test_training_the_reverse_model_makes_it_exact() -> None:
    vae, marginal = linear_vae(exact=False)
    term, q = AuxiliaryKL(vae), posterior()
    before = estimate(term, q)[0]
    optimizer = torch.optim.Adam([p for p in term.parameters() if p.requires_grad], lr=0.02)
    torch.manual_seed(2)
    many = Normal(*(part.repeat(50, 1, 1, 1) for part in q))
    for _ in range(400):
        optimizer.zero_grad()
        term(many).mean().backward()
        optimizer.step()
    true = torch.stack([distributions.kl_divergence(full(q, i), marginal) for i in range(3)])
    after, error = estimate(term, q)
    assert (before - true).sum() > 1 and ((after - true) < 0.05 + 4 * error).all() and (after - true > -4 * error).all()


def test_what_is_trained_and_what_is_fixed() -> None:
    vae = small_vae()
    trained = {name for name, p in AuxiliaryKL(vae).named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("prior.encoder.") for name in trained)
    assert not any(p.requires_grad for p in AuxiliaryKL(vae, train_reverse=False).parameters())
    chain = KernelChain(SHAPE, transitions=2, latent_dim=2, hidden=8)
    trained = {name.split(".")[1] for name, p in AuxiliaryKL(chain).named_parameters() if p.requires_grad}
    assert trained == {"encoder", "reverse_steps"}
    for proposal, fixed in (("encoder", False), ("prior", True)):
        assert any(p.requires_grad for p in SemiImplicitKL(vae, 2, proposal).parameters()) != fixed
    assert all(p.requires_grad for p in vae.parameters())


def test_a_linear_chain_is_exact() -> None:
    """Untrained transitions keep N(0, I) and are their own reverse, so the chain's bound is that of its VAE."""
    vae, marginal = linear_vae()
    chain = KernelChain(SHAPE, transitions=2, latent_dim=2, hidden=8, min_scale=0.1, whiten=False).double()
    chain.encoder, chain.decoder = vae.encoder, vae.decoder
    q = posterior()
    true = torch.stack([distributions.kl_divergence(full(q, i), marginal) for i in range(3)])
    value, error = estimate(AuxiliaryKL(chain), q)
    assert error.max() < 0.1 and ((value - true).abs() < 4 * error).all()


@pytest.mark.parametrize("proposal", ["encoder", "prior"])
def test_the_semi_implicit_bound_falls_to_the_divergence(proposal: str) -> None:
    """Which quadrature over z gives, as E_q of -log p(w) less the entropy; the encoder here is that of no fit."""
    torch.manual_seed(1)
    vae, q = KernelVAE(SHAPE, latent_dim=1, hidden=8, whiten=False).double(), posterior()
    with torch.no_grad():
        for part in (vae.decoder.heads.weight, vae.encoder.heads.weight):
            part.mul_(3)
        drawn = Normal(*(part.repeat(4000, 1, 1, 1) for part in q)).draw()
        exact = -vae.log_prob_by_quadrature(drawn).view(4000, -1) - entropy(q)
    bounds = {draws: estimate(SemiImplicitKL(vae, draws, proposal), q) for draws in (1, 4, 16, 256)}
    true, noise = exact.mean(0), exact.std(0) / math.sqrt(4000)
    for (upper, upper_error), (lower, lower_error) in itertools.pairwise([*bounds.values(), (true, noise)]):
        assert (upper - lower > -4 * (upper_error + lower_error)).all()
    assert (bounds[1][0] - bounds[4][0] > 0.05).all() and (bounds[4][0] - bounds[16][0] > 0.01).all()
    assert (bounds[256][0] - true < 0.03 + 4 * (noise + bounds[256][1])).all()


def test_one_draw_of_the_reverse_model_is_algorithm_1() -> None:
    vae, q = linear_vae(exact=False)[0], posterior()
    (one, error), (auxiliary, other) = (
        estimate(term, q, draws=16_000) for term in (SemiImplicitKL(vae, 1), AuxiliaryKL(vae))
    )
    assert error.max() < 0.05 and ((one - auxiliary).abs() < 4 * (error + other)).all()


def test_more_draws_of_a_chain_are_tighter() -> None:
    """A linear chain is exact with any number of draws; with transitions that are off, more draws mend it."""
    vae, marginal = linear_vae(exact=False)
    chain = KernelChain(SHAPE, transitions=1, latent_dim=2, hidden=8, min_scale=0.1, whiten=False).double()
    chain.encoder, chain.decoder = vae.encoder, vae.decoder
    q = posterior()
    true = torch.stack([distributions.kl_divergence(full(q, i), marginal) for i in range(3)])
    few, many = (estimate(SemiImplicitKL(chain, draws), q) for draws in (1, 64))
    assert (few[0] - many[0] > 0.1).all()
    assert ((many[0] - true).abs() < 0.05 + 4 * many[1]).all()


def test_gaussian_in_closed_form() -> None:
    prior, q = gaussian(), posterior()
    basis = prior.whitening.basis * prior.whitening.scale
    p = distributions.MultivariateNormal(prior.whitening.loc, basis @ basis.T)
    expected = torch.stack([distributions.kl_divergence(full(q, i), p) for i in range(3)])
    torch.testing.assert_close(GaussianKL(prior)(q), expected)
    value, error = estimate(MonteCarloKL(prior), q)
    assert error.max() < 1 and ((value - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_normal_in_closed_form(scale: float) -> None:
    q = posterior()
    p = distributions.Independent(
        distributions.Normal(torch.zeros(DIM).double(), torch.full((DIM,), scale).double()), 1
    )
    term = NormalKL(scale).double()
    torch.testing.assert_close(term(q), distributions.kl_divergence(law(q), p), rtol=1e-6, atol=1e-6)


def test_a_learned_scale_finds_the_root_mean_square() -> None:
    q, term = posterior(200), NormalKL(3.0, learn=True).double()
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        term(q).sum().backward()
        optimizer.step()
    best = (q.loc.square() + q.scale.square()).mean().sqrt()
    assert term.log_scale.exp().item() == pytest.approx(best.item(), rel=1e-3)
    assert not any(p.requires_grad for p in NormalKL().parameters())


def integrated(alpha: float) -> float:
    """KL(N(1, α) ‖ log-uniform) up to a constant, by quadrature: -H(q) + E log |w|."""
    scale = math.sqrt(alpha)
    w = torch.linspace(1 - 12 * scale, 1 + 12 * scale, 4_000_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((w - 1) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
    expected = torch.trapezoid(density * w.abs().clamp_min(1e-12).log(), w).item()
    return expected - math.log(scale) - 0.5 * (1 + math.log(2 * math.pi))


def one_weight(alpha: float) -> Normal:
    loc = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return Normal(loc, math.sqrt(alpha) * loc)


def test_log_uniform_against_integration() -> None:
    limit = integrated(1e6)
    alphas = [10**x for x in (-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3)]
    errors = [LogUniformKL()(one_weight(alpha)).item() - (integrated(alpha) - limit) for alpha in alphas]
    assert max(map(abs, errors)) < 0.02


def test_truncated_log_uniform_against_integration() -> None:
    found = [
        TruncatedLogUniformKL()(one_weight(alpha)).item() - integrated(alpha) for alpha in (0.01, 0.1, 0.3, 0.6, 1)
    ]
    assert max(found) - min(found) < 0.04


def test_log_uniform_is_scale_free_and_sums_over_weights() -> None:
    q = posterior()
    for term in (LogUniformKL(), TruncatedLogUniformKL()):
        torch.testing.assert_close(term(Normal(7 * q.loc, 7 * q.scale)), term(q), rtol=1e-3, atol=0)
        each = term(Normal(*(part.reshape(-1, 1, 1, 1) for part in q))).view(3, -1).sum(1)
        torch.testing.assert_close(term(q), each)


def mixture() -> GaussianMixture:
    kernels = torch.randn(300, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 0.5 + 0.2
    return GaussianMixture(SHAPE, 2, (0.5, 1.0)).double().fit_(kernels, generator=torch.Generator().manual_seed(0))


def small_vae() -> KernelVAE:
    torch.manual_seed(0)
    return KernelVAE(SHAPE, latent_dim=2, hidden=8).double()


def small_chain() -> KernelChain:
    torch.manual_seed(0)
    return KernelChain(SHAPE, transitions=1, latent_dim=2, hidden=8).double()


TERMS: dict[str, Callable[[], KL]] = {
    "normal": lambda: NormalKL(0.7, learn=True).double(),
    "log-uniform": LogUniformKL,
    "truncated": TruncatedLogUniformKL,
    "gaussian": lambda: GaussianKL(gaussian()),
    "monte carlo": lambda: MonteCarloKL(mixture(), samples=2),
    "auxiliary": lambda: AuxiliaryKL(small_vae(), samples=2),
    "chain": lambda: AuxiliaryKL(small_chain()),
    "semi-implicit": lambda: SemiImplicitKL(small_vae(), 3, samples=2),
    "semi-implicit, p(z)": lambda: SemiImplicitKL(small_vae(), 3, "prior"),
    "semi-implicit chain": lambda: SemiImplicitKL(small_chain(), 3),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_against_finite_differences(name: str) -> None:
    """In q, and in the reverse model's parameters, with the noise held."""
    term, q = TERMS[name](), posterior(2)

    def value(loc: Tensor, log_scale: Tensor, *parameters: Tensor) -> Tensor:
        torch.manual_seed(4)
        names = [key for key, p in term.named_parameters() if p.requires_grad][: len(parameters)]
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(term, state, (Normal(loc, log_scale.exp()),))

    parameters = [p.detach().requires_grad_() for p in term.parameters() if p.requires_grad][:2]
    inputs = (q.loc.requires_grad_(), q.scale.log().detach().requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_nats_per_kernel(name: str) -> None:
    term, q = TERMS[name](), posterior(5)
    torch.manual_seed(0)
    assert term(q).shape == (5,) and term(q).isfinite().all()
    assert term(Normal(q.loc[:0], q.scale[:0])).shape == (0,)


def test_entropy() -> None:
    torch.testing.assert_close(entropy(posterior()), law(posterior()).entropy())


@pytest.mark.parametrize(
    ("prior", "kind"),
    [(gaussian, GaussianKL), (mixture, MonteCarloKL), (small_vae, AuxiliaryKL), (small_chain, AuxiliaryKL)],
)
def test_the_term_of_a_prior(prior: Callable[[], Prior], kind: type[PriorKL]) -> None:
    own = prior()
    term = kl_from(own)
    assert type(term) is kind and term.prior is not own and term.kernel_shape == SHAPE and not term.prior.training


def test_the_term_of_a_prior_with_latents_by_draws() -> None:
    term = kl_from(small_vae(), samples=2, train_reverse=False, draws=7)
    assert type(term) is SemiImplicitKL and (term.draws, term.samples, term.proposal) == (7, 2, "encoder")
    assert not any(p.requires_grad for p in term.parameters())
    with pytest.raises(TypeError, match="SemiImplicitKL needs a prior with latents; got Gaussian: see kl_from"):
        kl_from(gaussian(), draws=7)


def test_helpful_errors() -> None:
    with pytest.raises(ValueError, match="draws must be a whole number from 1"):
        SemiImplicitKL(small_vae(), 0)
    with pytest.raises(ValueError, match="proposal must be one of 'encoder', 'prior'; got 'both'"):
        SemiImplicitKL(small_vae(), 2, "both")
    with pytest.raises(TypeError, match="GaussianKL needs a Gaussian prior; got KernelVAE"):
        GaussianKL(small_vae())
    with pytest.raises(TypeError, match="MonteCarloKL needs a prior with an exact log p; got KernelVAE"):
        MonteCarloKL(small_vae())
    with pytest.raises(TypeError, match="AuxiliaryKL needs a prior with latents; got Gaussian"):
        AuxiliaryKL(gaussian())
    with pytest.raises(TypeError, match="got str"):
        kl_from("notmnist-7x7")
    for call in (lambda: AuxiliaryKL(small_vae(), samples=0), lambda: MonteCarloKL(mixture(), samples=0)):
        with pytest.raises(ValueError, match="samples must be a whole number from 1"):
            call()
    with pytest.raises(ValueError, match="scale must be a number above 0"):
        NormalKL(0.0)
