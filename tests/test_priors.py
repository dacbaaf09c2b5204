"""Truth tests: every family against densities that are known in closed form."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from dwp_init.priors import FAMILIES, Gaussian, KernelVAE
from dwp_init.priors.vae import Normal
from dwp_init.priors.whitening import Whitening

PRIORS = {
    "gaussian": lambda: Gaussian((1, 3, 3)),
    "gaussian-channels": lambda: Gaussian((2, 3, 2)),
    "dense": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=8),
    "dense-channels": lambda: KernelVAE((2, 3, 2), latent_dim=2, hidden=8),
    "paper-7x7": lambda: KernelVAE((1, 7, 7), network="paper", latent_dim=2),
    "paper-5x5": lambda: KernelVAE((1, 5, 5), network="paper", latent_dim=4),
}


@pytest.fixture(params=PRIORS)
def prior(request):
    torch.manual_seed(0)
    prior = PRIORS[request.param]()
    prior.whitening.fit_(correlated(200, prior.dim))
    return prior.eval()


def correlated(n, dim):
    """Draws vectors with a full covariance and a mean, in float32."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(dim, dim, generator=generator)
    return 0.1 * torch.randn(n, dim, generator=generator) @ mix + 0.05 * torch.randn(dim, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Every family


def test_every_family_is_asked():
    assert {type(make()) for make in PRIORS.values()} == set(FAMILIES.values())
    assert all(family.family == name for name, family in FAMILIES.items())


def test_sample_is_reproducible_and_leaves_the_global_state(prior):
    state = torch.get_rng_state()
    first, again, other = (prior.sample(20, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (20, *prior.kernel_shape) and first.dtype == torch.float32 and not first.requires_grad
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(prior.sample(20), prior.sample(20))  # the global one moves on


@pytest.mark.parametrize("n", [0, 1, 7, 8, 17])
def test_sample_in_chunks(prior, n):
    prior.chunk = 8
    drawn = []
    draw = prior._draw
    prior._draw = lambda n, *rest: drawn.append(n) or draw(n, *rest)
    kernels = prior.sample(n, seeded())
    assert kernels.shape == (n, *prior.kernel_shape)
    assert sum(drawn) == n and all(0 < size <= 8 for size in drawn)
    assert len(kernels.flatten(1).unique(dim=0)) == n  # no row twice, none left empty


def test_sample_takes_what_counts_as_an_int(prior):
    assert len(prior.sample(torch.tensor(3))) == 3


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (2.5, TypeError), (True, TypeError), ("3", TypeError)])
def test_sample_errors(prior, n, error):
    with pytest.raises(error, match=f"number of kernels must be .*; got {n!r}"):
        prior.sample(n)


@pytest.mark.parametrize("samples", [{}, {"samples": 1}])
def test_log_prob_of_any_number_of_kernels(prior, samples):
    samples = {} if prior.exact else samples
    for n in (0, 1, 3):
        log_prob = prior.log_prob(prior.sample(n, seeded()), **samples)
        assert log_prob.shape == (n,) and log_prob.isfinite().all()


def test_kernels_of_another_shape_or_type(prior):
    channels, height, width = prior.kernel_shape
    for wrong in [(3, height, width), (3, channels, height, width + 1), (3, channels + 1, height, width)]:
        with pytest.raises(ValueError, match=rf"shape \(n, {channels}, {height}, {width}\); got \({wrong[0]}, "):
            prior.log_prob(torch.zeros(wrong))
    with pytest.raises(TypeError, match="kernels must be a tensor; got list"):
        prior.log_prob([0.0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_kernels_and_priors_of_another_dtype(prior, dtype):
    kernels = prior.sample(4, seeded())
    options = {} if prior.exact else {"generator": seeded()}
    assert prior.log_prob(kernels.to(dtype), **options).dtype == torch.float32
    double = prior.double()
    assert double.sample(2).dtype == torch.float64
    assert double.log_prob(kernels).dtype == torch.float64


def test_arguments_rebuild_it_and_default_dtype_does_not_matter(prior):
    again = type(prior)(prior.kernel_shape, **prior.arguments())
    again.load_state_dict(prior.state_dict())
    again.eval()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(again.sample(5, seeded()), prior.sample(5, seeded()))
        assert again.sample(1).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert f"kernel_shape={prior.kernel_shape}" in repr(again)


def test_noise_is_the_white_step_of_a_vae_only(prior):
    assert prior.has_noise == isinstance(prior, KernelVAE)
    drawn, mean = prior.sample(2000, seeded()), prior.sample(2000, seeded(), noise=False)
    if not prior.has_noise:
        assert torch.equal(drawn, mean)
    else:
        z = torch.randn(5, prior.latent_dim, generator=seeded())
        expected = prior.whitening.inverse(prior.decode(z).loc).view(5, *prior.kernel_shape)
        torch.testing.assert_close(prior.sample(5, seeded(), noise=False), expected)
        assert drawn.var(0).sum() > mean.var(0).sum()


@pytest.mark.parametrize("family", FAMILIES.values())
@pytest.mark.parametrize("shape", [(7, 7), (1, 7, 7, 1), (1, 0, 7), (1, -7, 7), (1, 7.0, 7), (True, 7, 7), 7, "177"])
def test_kernel_shape_errors(family, shape):
    with pytest.raises(ValueError, match=r"kernel_shape must be \(channels, height, width\), each 1 or more; got"):
        family(shape)


def test_kernel_shape_has_a_limit():
    with pytest.raises(ValueError, match="at most 1048576 numbers; got"):
        Gaussian((1, 10**12, 10**12))


# Gaussian


def test_gaussian_is_the_maximum_likelihood_one():
    kernels = correlated(300, 9).double()
    prior = Gaussian((1, 3, 3)).double().fit_(kernels.view(-1, 1, 3, 3))
    truth = MultivariateNormal(kernels.mean(0), torch.cov(kernels.T, correction=0))
    x = kernels[:50] + 0.1
    torch.testing.assert_close(prior.log_prob(x.view(-1, 1, 3, 3)), truth.log_prob(x), rtol=1e-9, atol=1e-9)
    single = prior.float().log_prob(x.view(-1, 1, 3, 3))
    torch.testing.assert_close(single.double(), truth.log_prob(x), rtol=1e-4, atol=1e-3)


def test_gaussian_samples_have_its_mean_and_covariance():
    kernels = correlated(300, 4)
    prior = Gaussian((1, 2, 2)).fit_(kernels.view(-1, 1, 2, 2))
    drawn = prior.sample(200_000, seeded()).flatten(1)
    covariance = torch.cov(kernels.T, correction=0)
    torch.testing.assert_close(drawn.mean(0), kernels.mean(0), rtol=0, atol=0.01 * covariance.diagonal().max().sqrt())
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0, atol=0.01 * covariance.diagonal().max())


# Whitening


def test_whitening_round_trip_and_log_det():
    whitening = Whitening(9).double()
    x = correlated(300, 9).double()
    torch.testing.assert_close(whitening(x), x)  # the identity at first
    whitening.fit_(x)
    white = whitening(x)
    torch.testing.assert_close(whitening.inverse(white), x)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(9).double())
    jacobian = torch.autograd.functional.jacobian(lambda u: whitening.inverse(u[None])[0], white[0])
    torch.testing.assert_close(whitening.log_det(), torch.linalg.slogdet(jacobian).logabsdet)


def test_whitening_floors_directions_without_spread():
    x = torch.randn(100, 1, generator=seeded()) * torch.tensor([1.0, 2.0, 0.0])
    scale = Whitening(3).fit_(x, min_scale=0.01).scale
    torch.testing.assert_close(scale.min(), 0.01 * scale.max())
    assert Whitening(1).fit_(x[:, :1]).basis.shape == (1, 1)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (torch.zeros(1, 4), "at least 2 kernels; got 1"),
        (torch.full((7, 4), 0.1), "the 7 kernels are all the same"),
        (torch.tensor([[0.0, torch.nan], [torch.inf, 1.0], [0.0, 1.0]]), "2 of 3 kernels hold NaN or infinity"),
    ],
)
def test_whitening_errors(kernels, message):
    with pytest.raises(ValueError, match=message):
        Whitening(kernels.shape[1]).fit_(kernels)


# Kernel VAE


@pytest.mark.parametrize(
    ("size", "latent_dim", "encoder", "decoder"), [(7, 2, 56_004, 56_674), (5, 4, 260_040, 304_194)]
)
def test_parameter_counts_of_table_2(size, latent_dim, encoder, decoder):
    vae = KernelVAE((1, size, size), network="paper", latent_dim=latent_dim)
    found = [sum(p.numel() for p in part.parameters()) for part in (vae.encoder, vae.decoder)]
    assert found == [encoder, decoder]


def linear_gaussian(fidelity=1.0):
    """Returns a VAE with u = A z + b + s ε, its kernels' exact distribution, and 40 kernels.

    ReLUs are shifted so far up that the dense networks are linear. The columns of A are orthogonal, so the encoder
    can be the exact posterior; below 1, ``fidelity`` shrinks its mean and its scale.
    """
    vae = KernelVAE((1, 2, 2), latent_dim=2, hidden=4, min_scale=0.1).double()
    vae.whitening.fit_(correlated(300, 4).double())
    directions = torch.linalg.qr(torch.randn(4, 2, generator=seeded(5)).double()).Q
    a, b, s = directions * torch.tensor([1.5, 0.7]), torch.tensor([0.3, -0.2, 0.1, 0.0]).double(), 0.4
    variance = 1 / (1 + (a / s).square().sum(0))
    set_linear(vae.decoder, a, b, torch.full((4,), s**2 - 0.1**2).double())
    recognize = fidelity * variance[:, None] * a.T / s**2
    set_linear(vae.encoder, recognize, -recognize @ b, fidelity**2 * variance)
    back = vae.whitening.basis * vae.whitening.scale
    covariance = back @ (a @ a.T + s**2 * torch.eye(4)) @ back.T
    truth = MultivariateNormal(vae.whitening.loc + back @ b, covariance)
    return vae, truth, truth.mean + torch.randn(40, 4, generator=seeded(6)).double() @ truth.scale_tril.T


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


def test_elbo_and_log_prob_are_exact_with_the_exact_posterior():
    vae, truth, x = linear_gaussian()
    kernels, exact = x.view(-1, 1, 2, 2), truth.log_prob(x)
    elbo = torch.stack([vae.elbo(kernels, seeded(i)) for i in range(500)]).detach()
    error = (elbo.mean(0) - exact).abs() / (elbo.std(0) / math.sqrt(500))
    assert error.max() < 4.5
    torch.testing.assert_close(vae.log_prob(kernels, 1), exact, rtol=0, atol=1e-5)  # one sample comes from the encoder
    torch.testing.assert_close(vae.log_prob(kernels, 3000, seeded()), exact, rtol=0, atol=0.05)


def test_dropout_is_for_the_dense_encoder_while_fitting():
    vae = KernelVAE((1, 3, 3), latent_dim=2, hidden=8, dropout=0.5)
    x, z = torch.randn(4, 9), torch.randn(4, 2)
    assert not torch.equal(vae.encode(x).loc, vae.encode(x).loc)
    assert torch.equal(vae.decode(z).loc, vae.decode(z).loc)
    vae.eval()
    assert torch.equal(vae.encode(x).loc, vae.encode(x).loc)


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
    whole = vae._importance_bound
    monkeypatch.setattr(vae, "_importance_bound", lambda flat, *rest: calls.append(len(flat)) or whole(flat, *rest))
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


@pytest.mark.parametrize("bound", [KernelVAE.elbo, lambda vae, kernels: vae.importance_bound(kernels, 4)])
def test_bounds_are_differentiable_in_every_parameter(bound):
    vae = KernelVAE((1, 3, 3), latent_dim=2, hidden=8)
    bound(vae, torch.randn(16, 1, 3, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in vae.parameters())


@pytest.mark.parametrize("network", ["dense", "paper"])
def test_variance_floor(network):
    vae = KernelVAE((1, 5, 5), network=network, latent_dim=2, min_scale=0.25)
    raw = vae.decoder.heads if network == "dense" else vae.decoder.fc_var
    with torch.no_grad():
        raw.bias[-1 if network == "paper" else 25 :].fill_(-1e4)
    scale = vae.decode(torch.randn(6, 2)).scale
    torch.testing.assert_close(scale, torch.full((6, 25), 0.25))


def test_normal_against_torch():
    loc, scale, x = torch.randn(3, 5, 4, generator=seeded()).double()
    normal, truth = Normal(loc, scale.exp()), torch.distributions.Normal(loc, scale.exp())
    torch.testing.assert_close(normal.log_prob(x), truth.log_prob(x).sum(-1))
    standard = torch.distributions.Normal(torch.zeros(4).double(), 1.0)
    torch.testing.assert_close(normal.kl_standard(), torch.distributions.kl_divergence(truth, standard).sum(-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "conv"}, "network must be 'dense' or 'paper'; got 'conv'"),
        ({"network": "paper"}, r"kernels \(1, 7, 7\) and \(1, 5, 5\); got \(1, 3, 3\): use network='dense'"),
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("latent_dim", "hidden") for value in (0, -1, 2.0, True, "4", 10**12, 10**400)),
        ({"network": "paper", "hidden": 8}, "the paper's network has no hidden=8 and dropout=0.0; leave both out"),
        ({"network": "paper", "dropout": 0.1}, "the paper's network has no hidden=None and dropout=0.1"),
        *(({"min_scale": value}, f"min_scale must be a number above 0 and below 1,000,000; got {value!r}")
          for value in (0, -0.1, math.nan, math.inf, "x", None, True, 10**400)),
        *(({"dropout": value}, f"dropout must be a number from 0 to below 1; got {value!r}")
          for value in (-0.1, 1, math.nan, "x", None, True)),
        ({"whiten": "no"}, "whiten must be True or False; got 'no'"),
        ({"whiten": 1}, "whiten must be True or False; got 1"),
    ],
)  # fmt: skip
def test_vae_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelVAE((1, 3, 3), **arguments)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_must_be_a_count(samples):
    with pytest.raises(ValueError, match=f"samples must be a whole number from 1 to 1048576; got {samples}"):
        KernelVAE((1, 3, 3), hidden=4).log_prob(torch.zeros(1, 1, 3, 3), samples=samples)
