"""Chains: against the VAE that they start as, and against closed forms."""

import pytest
import torch

from dwp_init.priors import KernelChain
from dwp_init.priors.latent import average
from tests.priors.families import seeded
from tests.priors.known import bumpy, linear_gaussian, repeated


def test_a_chain_without_transitions_is_the_vae_bit_for_bit():
    vae, kernels, _ = bumpy()
    chain, *_ = bumpy(family=KernelChain, transitions=0)
    assert chain.state_dict().keys() == vae.state_dict().keys()
    for ask in (
        lambda prior: prior.sample(9, seeded()),
        lambda prior: prior.sample(9, seeded(), noise=False),
        lambda prior: prior.log_prob(kernels, 50, seeded()),
        lambda prior: prior.estimate(kernels, 50, seeded()).error,
        lambda prior: prior.elbo(kernels, seeded()),
        lambda prior: prior.importance_bound(kernels, 5, seeded()),
        lambda prior: prior.log_prob_by_quadrature(kernels, 60),
    ):
        assert torch.equal(ask(chain), ask(vae))


def test_a_chain_starts_as_the_vae():
    vae, kernels, exact = bumpy()
    chain, *_ = bumpy(family=KernelChain, transitions=3)
    found = chain.estimate(kernels, 10_000, seeded())
    assert ((found.log_prob - exact).abs() / found.error).max() < 4 and found.error.max() < 0.05
    drawn, mean = chain.sample(100_000, seeded()).flatten(1), vae.sample(100_000, seeded(1)).flatten(1)
    error = (drawn.var(0) + mean.var(0)).div(100_000).sqrt()
    assert ((drawn.mean(0) - mean.mean(0)).abs() / error).max() < 4
    torch.testing.assert_close(drawn.T.cov(), mean.T.cov(), rtol=0, atol=0.02 * mean.var(0).max().item())
    gap = [repeated(lambda k, p=p: p.importance_bound(k, 1, seeded(2)), kernels) for p in (chain, vae)]
    assert abs(gap[0][0].mean() - gap[1][0].mean()) < 4 * (gap[0][1] + gap[1][1])  # nor do the transitions loosen it


@pytest.mark.parametrize("transitions", [1, 2])
def test_a_linear_chain_is_exact_with_exact_reverse_steps(transitions):
    chain, truth, x = linear_gaussian(transitions=transitions)
    kernels, exact = x.view(-1, 1, 2, 2), truth.log_prob(x)
    for bound in (chain.elbo(kernels, seeded()), chain.importance_bound(kernels, 3), chain.log_prob(kernels, 1)):
        torch.testing.assert_close(bound, exact, rtol=0, atol=1e-6)
    found = chain.estimate(kernels, 3000, seeded())
    assert ((found.log_prob - exact).abs() / found.error).max() < 4.5 and found.error.max() < 0.1
    drawn = chain.sample(100_000, seeded()).flatten(1)
    unit = truth.variance.sqrt()
    assert ((drawn.mean(0) - truth.mean) / unit).abs().max() < 0.014
    assert ((drawn.T.cov() - truth.covariance_matrix) / torch.outer(unit, unit)).abs().max() < 0.02


def test_a_chain_of_any_steps_has_the_density_that_it_draws_from():
    chain, kernels, exact = bumpy(family=KernelChain, transitions=2)
    with torch.no_grad():
        for parameter in (*chain.forward_steps.parameters(), *chain.reverse_steps.parameters()):
            parameter += 0.3 * torch.randn_like(parameter)
        law = chain.decode(chain._draw_latent(200_000, seeded())[:, None])
        white = chain.whitening(kernels.flatten(1))
        truth = average(law.log_prob(white) - chain.whitening.log_det())
        found = chain.estimate(kernels, 20_000, seeded(1))
    assert ((found.log_prob - truth.log_prob).abs() / torch.hypot(found.error, truth.error)).max() < 4
    assert torch.hypot(found.error, truth.error).max() < 0.1
    assert (truth.log_prob - exact).abs().max() > 0.5  # the transitions matter


def test_bounds_of_a_chain_are_differentiable_in_every_parameter():
    chain, kernels, _ = bumpy(family=KernelChain, transitions=2)
    for parameter in (*chain.forward_steps.parameters(), *chain.reverse_steps.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    for bound in (chain.elbo, lambda k: chain.importance_bound(k, 4)):
        chain.zero_grad()
        bound(kernels.repeat(10, 1, 1, 1)).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in chain.parameters())


@pytest.mark.parametrize("transitions", [-1, 1001, 2.0, True, "1", None])
def test_transitions_must_be_a_whole_number(transitions):
    with pytest.raises(ValueError, match=f"transitions must be a whole number from 0 to 1000; got {transitions!r}"):
        KernelChain((1, 3, 3), transitions)


def test_a_chain_weighs_the_paths_that_it_draws_while_it_is_fitted_too():
    """With dropout between the two passes the bound would have no upper limit."""
    torch.manual_seed(0)
    chain = KernelChain((1, 3, 3), transitions=2, latent_dim=2, hidden=16, dropout=0.5).train()
    with torch.no_grad():
        for parameter in chain.reverse_steps.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    white, noise = torch.randn(5, 9), torch.randn(7, 5, 6)
    reverse = chain._reverse(white)
    path = reverse.transform(noise)
    assert torch.equal(reverse.log_prob(path), reverse.log_prob(path))
    assert torch.equal(reverse.transform(noise), path)
