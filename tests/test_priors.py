"""Truth tests: every family against densities that are known in closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from dwp_init import apply_
from dwp_init.priors import (
    FAMILIES,
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
)
from dwp_init.priors.whitening import Whitening

PRIORS = {
    "gaussian": lambda: Gaussian((1, 3, 3)),
    "gaussian-channels": lambda: Gaussian((2, 3, 2)),
    "dense": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=8),
    "dense-channels": lambda: KernelVAE((2, 3, 2), latent_dim=2, hidden=8),
    "mixture": lambda: GaussianMixture((1, 3, 3), components=3, scales=(0.5, 1.0)),
    "mixture-channels": lambda: GaussianMixture((2, 3, 2), components=2),
    "by-depth": lambda: MixtureByDepth((1, 3, 3), (0.2, 1.0), (3, 2), (0.5, 1.0)),
    "kde": lambda: KernelDensity((1, 3, 3), count=200),
    "kde-channels": lambda: KernelDensity((2, 3, 2), count=200),
    "flow": lambda: Flow((1, 3, 3), transforms=2, hidden=8),
    "flow-coupling": lambda: Flow((1, 3, 3), network="nsf", transforms=2, hidden=8, coupling=True),
    "autoregressive": lambda: Autoregressive((1, 3, 3), hidden=8, mixtures=2),
    "autoregressive-channels": lambda: Autoregressive((2, 3, 2), hidden=8, mixtures=2),
    "chain": lambda: KernelChain((1, 3, 3), transitions=2, latent_dim=2, hidden=8),
    "chain-0": lambda: KernelChain((1, 3, 3), transitions=0, latent_dim=2, hidden=8),
    "paper-7x7": lambda: KernelVAE((1, 7, 7), network="paper", latent_dim=2),
    "paper-5x5": lambda: KernelVAE((1, 5, 5), network="paper", latent_dim=4),
}


@pytest.fixture(params=PRIORS)
def prior(request):
    torch.manual_seed(0)
    prior = PRIORS[request.param]()
    return fitted(prior).eval()


def fitted(prior, kernels=None):
    kernels = correlated(200, prior.dim).view(-1, *prior.kernel_shape) if kernels is None else kernels
    if hasattr(prior, "fit_"):
        return prior.fit_(kernels)
    if isinstance(prior, MixtureByDepth):
        for mixture, part in zip(prior.mixtures, kernels.chunk(len(prior.mixtures)), strict=True):
            mixture.fit_(part)
        return prior
    prior.whitening.fit_(kernels.flatten(1))
    return prior


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


def test_noise_is_the_white_step_of_those_that_have_one(prior):
    assert prior.has_noise == isinstance(prior, (KernelVAE, KernelDensity))
    drawn, bare = prior.sample(2000, seeded()), prior.sample(2000, seeded(), noise=False)
    if not prior.has_noise:
        assert torch.equal(drawn, bare)
        return
    assert drawn.var(0).sum() > bare.var(0).sum()
    if isinstance(prior, KernelVAE):
        generator = seeded()
        z = torch.randn(5, prior.latent_dim, generator=generator)
        for _ in range(getattr(prior, "transitions", 0)):  # before it is fitted, each is z/√2 and noise
            z = z / math.sqrt(2) + math.sqrt(0.5) * torch.randn(5, prior.latent_dim, generator=generator)
        expected = prior.whitening.inverse(prior.decode(z).loc).view(5, *prior.kernel_shape)
        torch.testing.assert_close(prior.sample(5, seeded(), noise=False), expected)
    else:
        learned = {tuple(kernel.tolist()) for kernel in correlated(200, prior.dim)}
        found = {tuple(kernel.tolist()) for kernel in bare.flatten(1)}
        assert found <= learned and len(found) > 190  # of 200, 2000 draws leave out one in e¹⁰


def test_log_prob_has_the_gradient_of_its_finite_differences(prior):
    prior.double().requires_grad_(False)
    with torch.no_grad():
        for parameter in prior.parameters():  # away from networks that start at zero
            parameter += 0.05 * torch.randn(parameter.shape, generator=seeded(), dtype=torch.float64)
    kernels = prior.sample(2, seeded()).requires_grad_()

    def log_prob(kernels):
        return prior.log_prob(kernels) if prior.exact else prior.log_prob(kernels, 6, seeded(1))

    assert torch.autograd.gradcheck(log_prob, kernels, eps=1e-7, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(log_prob(kernels).sum(), kernels)
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("groups", [1, 4])
def test_apply_draws_layers_from_it(prior, groups):
    channels, *size = prior.kernel_shape

    def draw(seed, **options):
        torch.manual_seed(seed)  # of what is overwritten
        layer = nn.Conv2d(4, 8, size, groups=groups)
        assert apply_(layer, prior, scale="prior", seed=seed, **options).initialized == [""]
        return layer.weight.detach()

    if 4 // groups % channels:
        with pytest.raises(ValueError, match=f"no prior given fits {size[0]}×{size[1]} kernels here"):
            draw(0)
        return
    weight = draw(0)
    assert torch.equal(weight, draw(0)) and not torch.equal(weight, draw(1))
    own = prior.sample(2000, seeded()).square().mean().sqrt()
    assert weight.square().mean().sqrt().item() == pytest.approx(own.item(), rel=0.5)
    if prior.has_noise:
        assert not torch.equal(weight, draw(0, noise=False))
    else:
        with pytest.raises(ValueError, match=f"noise=False has no effect: {type(prior).__name__} has no"):
            draw(0, noise=False)


RGB = {
    "gaussian": lambda: Gaussian((3, 3, 3)),
    "mixture": lambda: GaussianMixture((3, 3, 3), components=2, scales=(0.5, 2.0)),
    "mixture-by-depth": lambda: MixtureByDepth((3, 3, 3), (0.0,), (2,)),
    "kde": lambda: KernelDensity((3, 3, 3), count=400),
    "flow": lambda: Flow((3, 3, 3), transforms=1, hidden=8, coupling=True),
    "autoregressive": lambda: Autoregressive((3, 3, 3), hidden=8),
    "vae": lambda: KernelVAE((3, 3, 3), latent_dim=2, hidden=8),
    "chain": lambda: KernelChain((3, 3, 3), latent_dim=2, hidden=8),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_of_three_channels_are_drawn_jointly(family):
    grey = correlated(400, 9).view(-1, 1, 3, 3)
    torch.manual_seed(0)
    prior = fitted(RGB[family](), grey.expand(-1, 3, -1, -1)).eval()
    stem = nn.Conv2d(3, 500, 3)
    apply_(stem, prior, seed=0)
    red, green, blue = stem.weight.detach().transpose(0, 1).flatten(1)
    assert torch.corrcoef(torch.stack([red, green, blue])).min() > 0.99
    apply_(stem, fitted(Gaussian((1, 3, 3)), grey), seed=0)  # one channel at a time
    assert torch.corrcoef(stem.weight.detach().transpose(0, 1).flatten(1)).triu(1).max() < 0.5


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
        (torch.full((7, 4), 0.1), "the 7 kernels are all equal"),
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


def test_dropout_is_for_the_dense_encoder_while_fitting():
    vae = KernelVAE((1, 3, 3), latent_dim=2, hidden=8, dropout=0.5)
    x, z = torch.randn(4, 9), torch.randn(4, 2)
    assert not torch.equal(vae.encode(x).loc, vae.encode(x).loc)
    assert torch.equal(vae.decode(z).loc, vae.decode(z).loc)
    vae.eval()
    assert torch.equal(vae.encode(x).loc, vae.encode(x).loc)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "conv"}, "network must be one of 'dense', 'paper'; got 'conv'"),
        ({"network": "paper"}, r"kernels \(1, 7, 7\) and \(1, 5, 5\); got \(1, 3, 3\): use network='dense'"),
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("latent_dim", "hidden") for value in (0, -1, 2.0, True, "4", 10**12, 10**400)),
        ({"network": "paper", "hidden": 8}, "the paper's network takes neither hidden=8 nor dropout=0.0; drop both"),
        ({"network": "paper", "dropout": 0.1}, "the paper's network takes neither hidden=None nor dropout=0.1"),
        *(({"min_scale": value}, f"min_scale must be a number above 0 and below 1,000,000; got {value!r}")
          for value in (0, -0.1, math.nan, math.inf, "x", None, True, 10**400)),
        *(({"dropout": value}, f"dropout must be a number from 0 to below 1; got {value!r}")
          for value in (-0.1, 1, math.nan, "x", None, True)),
    ],
)  # fmt: skip
def test_vae_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelVAE((1, 3, 3), **arguments)
