"""Truth tests of the latent-variable priors: their bounds, paths and chains against closed forms and quadrature."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal

from dwp_init.priors import KernelChain, KernelVAE
from dwp_init.priors.latent import Normal, Path, average, importance_weights
from dwp_init.priors.whitening import standard_normal_log_prob


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def linear_gaussian(fidelity=1.0, latent_dim=2, transitions=None):
    """Returns a prior with u = A z + b + s ε, its kernels' exact distribution, and 40 kernels.

    ReLUs are shifted so far up that the dense networks are linear. The columns of A are orthogonal, so the encoder
    can be the exact posterior; below 1, ``fidelity`` shrinks its mean and its scale. With ``transitions`` z is the
    last latent of a chain whose reverse steps are exact.
    """
    arguments = {"latent_dim": latent_dim, "hidden": 12, "min_scale": 0.1}
    family = (lambda *a, **k: KernelChain(*a, transitions, **k)) if transitions is not None else KernelVAE
    prior = family((1, 2, 2), **arguments).double()
    prior.whitening.fit_(0.1 * normal(300, 4) @ normal(4, 4, seed=1) + 0.05)
    directions = torch.linalg.qr(normal(4, latent_dim, seed=5)).Q
    a, b, s = directions * torch.tensor([1.5, 0.7])[:latent_dim], torch.tensor([0.3, -0.2, 0.1, 0.0]).double(), 0.4
    mean, variance = torch.zeros(latent_dim).double(), torch.ones(latent_dim).double()
    for step in range(transitions or 0):
        mean, variance = set_transition(prior, step, mean, variance)
    posterior = 1 / (1 / variance + (a / s).square().sum(0))
    set_linear(prior.decoder, a, b, torch.full((4,), s**2 - 0.1**2, dtype=torch.float64))
    recognize = fidelity * posterior[:, None] * a.T / s**2
    set_linear(
        prior.encoder, recognize, fidelity * posterior * mean / variance - recognize @ b, fidelity**2 * posterior
    )
    back = prior.whitening.basis * prior.whitening.scale
    covariance = back @ (a * variance @ a.T + s**2 * torch.eye(4)) @ back.T
    truth = MultivariateNormal(prior.whitening.loc + back @ (a @ mean + b), covariance)
    return prior, truth, truth.mean + normal(40, 4, seed=6) @ truth.scale_tril.T


def set_transition(chain, step, mean, variance):
    """Makes a step zₜ₊₁ = g zₜ + o + √v ε and its reverse exact, for zₜ of this law; returns the law of zₜ₊₁."""
    g, o, v = torch.tensor([0.9, 1.3]) - 0.1 * step, torch.tensor([0.5, -1.0]), torch.tensor([0.3, 0.8])
    after, variance_after = g * mean + o, g**2 * variance + v
    back = g * variance / variance_after
    left = variance - back**2 * variance_after
    half = math.log(math.expm1(0.5 - 1e-4))  # the offset at which a network of zeros gives the variance ½
    for network, gain, offset, noise in (
        (chain.forward_steps[step], g, o, v),
        (chain.reverse_steps[step], back, mean - back * after, left),
    ):
        shift = torch.zeros(2, network.body[0].in_features).double()
        shift[:, :2] = torch.diag(gain - 1 / math.sqrt(2))
        set_linear(network, shift, offset, F.softplus((noise.double() - 1e-4).expm1().log() - half))
    return after, variance_after


@torch.no_grad()
def set_linear(network, matrix, offset, variance, shift=100.0):
    """Makes a dense network return ``matrix x + offset`` and a raw head whose softplus is ``variance``."""
    first, second, heads = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear))
    inputs = first.in_features
    for layer in (first, second, heads):
        layer.weight.zero_()
        layer.bias.zero_()
    first.weight[:inputs] = torch.eye(inputs)
    first.bias.fill_(shift)
    second.weight.copy_(torch.eye(len(second.weight)))
    outputs = len(matrix)
    heads.weight[:outputs, :inputs] = matrix
    heads.bias[:outputs] = offset - matrix.sum(1) * shift
    heads.bias[outputs:] = variance.expm1().log()


# What they are made of


def test_normal_against_torch():
    loc, scale, x = normal(3, 5, 4)
    found, truth = Normal(loc, scale.exp()), torch.distributions.Normal(loc, scale.exp())
    torch.testing.assert_close(found.log_prob(x), truth.log_prob(x).sum(-1))
    standard = torch.distributions.Normal(torch.zeros(4).double(), 1.0)
    torch.testing.assert_close(found.kl_standard(), torch.distributions.kl_divergence(truth, standard).sum(-1))


def test_a_widened_normal():
    z, plain = normal(5, 4), Normal(normal(5, 4, seed=1), normal(5, 4, seed=2).exp())
    truth = torch.distributions.Normal(plain.loc, 3 * plain.scale)
    torch.testing.assert_close(plain.widened(3.0).log_prob(z), truth.log_prob(z).sum(-1))


def bent(mix):
    return lambda z: Normal((z @ mix).sin() + z, 0.2 + (z @ mix).square())


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_path_has_the_density_of_its_steps(factor, backward):
    first, mixes = Normal(normal(6, 2), normal(6, 2, seed=1).exp()), normal(3, 2, 2, seed=2)
    path = Path(first, [bent(mix) for mix in mixes], backward)
    wide = path.widened(factor) if factor != 1 else path
    noise = normal(6, 8, seed=3)
    z = wide.transform(noise)
    latents = list(z.split(2, -1))[:: -1 if backward else 1]
    laws = [first, *(bent(mix)(before) for mix, before in zip(mixes, latents, strict=False))]
    steps = [torch.distributions.Normal(law.loc, factor * law.scale) for law in laws]
    expected = sum(law.log_prob(latent).sum(-1) for law, latent in zip(steps, latents, strict=True))
    torch.testing.assert_close(wide.log_prob(z), expected)
    jacobian = torch.autograd.functional.jacobian(lambda x: wide.transform(x).sum(0), noise).permute(1, 0, 2)
    through = standard_normal_log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(wide.log_prob(z), through)


def test_a_path_of_several_samples_has_the_law_of_its_last_latent():
    step = lambda z: Normal(0.5 * z + 1, torch.full_like(z, 0.8))  # noqa: E731
    path = Path(Normal(torch.zeros(3, 1), torch.ones(3, 1)), [step, step], backward=True)
    last = path.transform(torch.randn(100_000, 3, 3, generator=seeded()))[..., 0]
    torch.testing.assert_close(last.mean(0), torch.full((3,), 1.5), rtol=0, atol=0.014)
    expected = (1 / 4 + 0.64) / 4 + 0.64
    torch.testing.assert_close(last.var(0), torch.full((3,), expected), rtol=0.02, atol=0)


def test_average_and_its_error():
    found = average(torch.tensor([[1.0, 5.0], [3.0, 5.0]]).double().log())
    torch.testing.assert_close(found.log_prob, torch.tensor([2.0, 5.0]).double().log())
    torch.testing.assert_close(found.error, torch.tensor([0.5, 0.0]).double())
    one = average(torch.tensor([[-1e4, 2.0]]))
    assert one.log_prob.tolist() == [-1e4, 2.0] and one.error.tolist() == [math.inf] * 2
    assert average(torch.full((8, 2), -1e5)).log_prob.tolist() == pytest.approx([-1e5] * 2)


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_importance_weights_are_those_of_a_stratified_mixture(samples):
    narrow, wide = (Normal(normal(5, 2, seed=i), torch.full((5, 2), s).double()) for i, s in enumerate((0.5, 2.0)))
    noise, target = normal(samples, 5, 2, seed=3), Normal(torch.full((5, 2), 0.3).double(), torch.ones(5, 2).double())
    found = importance_weights([narrow, wide], lambda z: target.log_prob(z) + 1.5, noise)
    z = torch.cat([narrow.transform(noise[::2]), wide.transform(noise[1::2])])
    share = len(noise[::2]) / samples
    density = share * narrow.log_prob(z).exp() + (1 - share) * wide.log_prob(z).exp()
    torch.testing.assert_close(found, target.log_prob(z) + 1.5 - density.log())


def test_importance_weights_have_the_integral_as_their_mean():
    proposals = [Normal(torch.zeros(4, 2).double(), torch.full((4, 2), s).double()) for s in (0.7, 1.5)]
    target = Normal(torch.full((4, 2), 0.5).double(), torch.ones(4, 2).double())
    weights = importance_weights(proposals, lambda z: target.log_prob(z) - 3, normal(40_000, 4, 2))
    found = average(weights)
    assert ((found.log_prob + 3).abs() / found.error).max() < 4 and found.error.max() < 0.01


# A linear-Gaussian prior, whose log p(w) is known


def test_elbo_and_log_prob_are_exact_with_the_exact_posterior():
    vae, truth, x = linear_gaussian()
    kernels, exact = x.view(-1, 1, 2, 2), truth.log_prob(x)
    elbo = torch.stack([vae.elbo(kernels, seeded(i)) for i in range(500)]).detach()
    error = (elbo.mean(0) - exact).abs() / (elbo.std(0) / math.sqrt(500))
    assert error.max() < 4.5
    torch.testing.assert_close(vae.log_prob(kernels, 1), exact, rtol=0, atol=1e-5)  # one sample comes from the encoder
    torch.testing.assert_close(vae.log_prob(kernels, 3000, seeded()), exact, rtol=0, atol=0.05)


def test_log_prob_rises_to_the_truth_and_elbo_stays_below():
    vae, truth, x = linear_gaussian(fidelity=0.5)
    kernels, exact = x.view(-1, 1, 2, 2), truth.log_prob(x)
    elbo = torch.stack([vae.elbo(kernels, seeded(i)) for i in range(200)]).mean().item()
    bounds = [vae.log_prob(kernels.repeat(6, 1, 1, 1), samples, seeded()).mean().item() for samples in (1, 6, 36, 3000)]
    assert elbo < bounds[1] < bounds[2] < bounds[3] < exact.mean() + 0.01
    assert bounds[0] < exact.mean() - 0.3 and bounds[3] > exact.mean() - 0.02
    assert not torch.equal(vae.log_prob(kernels, 36, seeded(1)), vae.log_prob(kernels, 36, seeded(2)))
    assert torch.equal(vae.log_prob(kernels, 36, seeded(1)), vae.log_prob(kernels, 36, seeded(1)))


def test_log_prob_in_several_parts_is_as_good(monkeypatch):
    vae, truth, x = linear_gaussian()
    many = x.repeat(3, 1)  # 120 kernels of 3000 samples: parts of 21
    calls = []
    whole = vae._weights
    monkeypatch.setattr(vae, "_weights", lambda white, *rest: calls.append(len(white)) or whole(white, *rest))
    log_prob = vae.log_prob(many.view(-1, 1, 2, 2), 3000, seeded())
    assert calls == [21] * 5 + [15]
    torch.testing.assert_close(log_prob, truth.log_prob(many), rtol=0, atol=0.05)


@pytest.mark.parametrize("samples", [1, 5, 100])
@pytest.mark.parametrize("network", ["dense", "paper"])
def test_log_prob_passes_a_bounded_number_through_the_networks(network, samples):
    vae = KernelVAE((1, 5, 5), network, latent_dim=2, hidden=1024 if network == "dense" else None).eval()
    kernels = vae.sample(40, seeded())
    whole = vae.log_prob(kernels, samples, seeded())
    vae.chunk, seen = (16, []) if network == "paper" else (8, [])
    for part in (vae.encoder, vae.decoder):
        part.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    torch.testing.assert_close(vae.log_prob(kernels, samples, seeded()), whole)
    assert max(seen) == 16 and sum(seen) == 40 + 40 * samples


def test_samples_of_the_vae_have_the_covariance_of_its_density():
    vae, truth, _ = linear_gaussian()
    drawn = vae.sample(200_000, seeded()).flatten(1)
    largest = truth.covariance_matrix.diagonal().max()
    torch.testing.assert_close(drawn.mean(0), truth.mean, rtol=0, atol=0.01 * largest.sqrt().item())
    torch.testing.assert_close(torch.cov(drawn.T), truth.covariance_matrix, rtol=0, atol=0.015 * largest.item())


def test_importance_bound_lies_between_the_elbo_and_the_truth():
    vae, truth, x = linear_gaussian(fidelity=0.8)
    kernels, generator = x.view(-1, 1, 2, 2), seeded()
    elbo, one, many = (
        torch.stack([bound(kernels) for _ in range(400)]).mean().item()
        for bound in (
            lambda k: vae.elbo(k, generator),
            lambda k: vae.importance_bound(k, 1, generator),
            lambda k: vae.importance_bound(k, 20, generator),
        )
    )
    assert one == pytest.approx(elbo, abs=0.05)
    assert elbo + 0.05 < many < truth.log_prob(x).mean().item() + 0.02


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_must_be_a_count(samples):
    with pytest.raises(ValueError, match=f"samples must be a whole number from 1 to 1048576; got {samples}"):
        KernelVAE((1, 3, 3), hidden=4).log_prob(torch.zeros(1, 1, 3, 3), samples=samples)
    with pytest.raises(ValueError, match=f"samples must be a whole number from 1 to 1048576; got {samples}"):
        KernelVAE((1, 3, 3), hidden=4).importance_bound(torch.zeros(1, 1, 3, 3), samples=samples)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_quadrature_is_exact(latent_dim):
    vae, truth, x = linear_gaussian(latent_dim=latent_dim)
    kernels = x.view(-1, 1, 2, 2)
    torch.testing.assert_close(vae.log_prob_by_quadrature(kernels), truth.log_prob(x), rtol=0, atol=1e-7)
    assert (vae.log_prob_by_quadrature(kernels, width=1.0) - truth.log_prob(x)).abs().max() > 0.1
    assert vae.log_prob_by_quadrature(kernels[:0]).shape == (0,)


def test_quadrature_errors():
    with pytest.raises(ValueError, match=r"quadrature takes at most 2 latents; this prior has 3: use estimate\(\)"):
        KernelVAE((1, 2, 2), latent_dim=3, hidden=4).log_prob_by_quadrature(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="quadrature takes no transitions; this chain has 2: use estimate"):
        KernelChain((1, 2, 2), 2, latent_dim=2, hidden=4).log_prob_by_quadrature(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="points must be a whole number from 1 to 1048576; got 0"):
        KernelVAE((1, 2, 2), latent_dim=1, hidden=4).log_prob_by_quadrature(torch.zeros(1, 1, 2, 2), points=0)


# A prior that is neither linear nor Gaussian, against quadrature


def bumpy(latent_dim=2, family=KernelVAE, **arguments):
    """Returns a prior with random networks, 6 of its kernels and their log p(w) by quadrature, without transitions."""
    torch.manual_seed(latent_dim)
    vae = KernelVAE((1, 2, 2), latent_dim=latent_dim, hidden=16, min_scale=0.2).double()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        vae.decoder.heads.bias[4:] -= 2
    vae.whitening.fit_(0.1 * normal(300, 4) @ normal(4, 4, seed=1) + 0.05)
    kernels = vae.sample(6, seeded())
    prior = family((1, 2, 2), latent_dim=latent_dim, hidden=16, min_scale=0.2, **arguments).double()
    prior.load_state_dict(vae.state_dict(), strict=False)
    return prior, kernels, vae.log_prob_by_quadrature(kernels)


def repeated(bound, kernels, times=300):
    """Returns independent estimates ``(times, n)`` and their mean's standard error over everything."""
    found = bound(kernels.repeat(times, 1, 1, 1)).view(times, -1).detach()
    return found, (found.std(0) / math.sqrt(times)).square().sum().sqrt().item() / found.shape[1]


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_estimates_lie_below_the_truth_and_tighten_with_samples(latent_dim):
    vae, kernels, exact = bumpy(latent_dim)
    gaps, errors = [], []
    for samples in (1, 8, 64, 512):
        found, error = repeated(lambda k, samples=samples: vae.estimate(k, samples, seeded(1)).log_prob, kernels)
        gaps.append((exact.mean() - found.mean()).item())
        errors.append(error)
    assert all(gap > -3 * error for gap, error in zip(gaps, errors, strict=True))
    assert all(more > less for more, less in itertools.pairwise(gaps))
    assert gaps[0] > 0.3 and gaps[-1] < 0.02


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_reported_error_is_the_spread_over_seeds(latent_dim):
    vae, kernels, _ = bumpy(latent_dim)
    found = vae.estimate(kernels.repeat(300, 1, 1, 1), 300, seeded(2))
    ratio = found.error.view(300, -1).mean(0) / found.log_prob.view(300, -1).std(0)
    assert ratio.min() > 0.5 and ratio.max() < 2
    assert torch.equal(vae.log_prob(kernels, 9, seeded()), vae.estimate(kernels, 9, seeded()).log_prob)


def test_a_wrong_encoder_spoils_the_bound_but_not_the_estimate():
    vae, kernels, exact = bumpy()
    with torch.no_grad():
        vae.encoder.heads.bias[:2] += 40
    alone, _ = repeated(lambda k: vae.importance_bound(k, 512, seeded()), kernels, 20)
    found, error = repeated(lambda k: vae.estimate(k, 512, seeded()).log_prob, kernels)
    assert (alone < exact - 10).all()
    assert -3 * error < (exact.mean() - found.mean()).item() < 0.1


# Chains


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
