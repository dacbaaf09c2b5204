"""What every family must do; and densities against quadrature, draws against densities."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from dwp_init import apply_, load_prior, save_prior
from dwp_init.priors import FAMILIES, Gaussian, KernelDensity, KernelVAE, Prior
from tests.priors.families import MIDDLE, PRIORS, RGB, SMALL, bent, correlated, fitted, normal, seeded

GAUSSIAN = ("gaussian", "patch-whitening")


@pytest.fixture(params=PRIORS)
def prior(request):
    torch.manual_seed(0)
    prior = PRIORS[request.param]()
    return fitted(prior).eval()


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
    assert sum(drawn) == n or type(prior)._fill is not Prior._fill  # a mixture has its own
    assert all(0 < size <= 8 for size in drawn)
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
    weight = torch.zeros(3, 2 * channels, height, width)
    with pytest.raises(ValueError, match=rf"by \.reshape\(-1, {channels}, {height}, {width}\), or see bayes\."):
        prior.log_prob(weight)
    for draw in (prior.sample, prior.sample_layer):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator; got int"):
            draw(3, generator=0)
    with pytest.raises(TypeError, match="kernels must be a tensor; got list"):
        prior.log_prob([0.0])
    with pytest.raises(TypeError, match=r"kernels must be real; got torch\.complex64: take"):
        prior.log_prob(torch.zeros(2, *prior.kernel_shape, dtype=torch.complex64))


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


def test_autocast_has_no_effect(prior, tmp_path):
    given = correlated(200, prior.dim).view(-1, *prior.kernel_shape)

    def asked(folder):
        torch.manual_seed(0)  # of k-means
        loaded = load_prior(save_prior(prior, tmp_path / folder))
        loaded.check()
        kernels, options = loaded.sample(9, seeded()), {} if prior.exact else {"generator": seeded()}
        layer = nn.Conv2d(6, 4, prior.kernel_shape[1:])
        apply_(layer, loaded, seed=0, scale="prior")
        nats = [loaded.log_prob(kernels, **options), *loaded.estimate(kernels, 9, seeded())]
        return [kernels, *nats, layer.weight, *fitted(copy.deepcopy(prior), given).state_dict().values()]

    plain = asked("plain")
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.bfloat16
        inside = asked("inside")
    assert [part.dtype for part in inside] == [part.dtype for part in plain]
    assert all(map(torch.equal, plain, inside))


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

    if 4 // groups % channels or (prior.joint and groups > 1):
        with pytest.raises(ValueError, match=rf"the model has {size[0]}×{size[1]} \(1 layer\)"):
            draw(0)
        return
    weight = draw(0)
    assert torch.equal(weight, draw(0)) and not torch.equal(weight, draw(1))
    own = prior.sample(2000, seeded()).square().mean().sqrt()
    assert prior.joint or weight.square().mean().sqrt().item() == pytest.approx(own.item(), rel=0.5)
    if prior.has_noise:
        assert not torch.equal(weight, draw(0, noise=False))
    else:
        with pytest.raises(ValueError, match=f"noise=False has no effect: {type(prior).__name__} has no"):
            draw(0, noise=False)


@pytest.mark.parametrize("family", RGB)
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


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv1d, (1, 4)), (nn.Conv3d, (2, 2, 2, 3))])
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_of_one_and_three_axes(family, kind, shape, tmp_path):
    small = {"kde": {"count": 200}, "flow": {"hidden": 8}, "autoregressive": {"hidden": 8}, "vae": {"hidden": 8}}
    torch.manual_seed(0)
    prior = load_prior(save_prior(fitted(FAMILIES[family](shape, **small.get(family, {}))), tmp_path / family))
    kernels = prior.sample(3, seeded())
    assert kernels.shape == (3, *shape) and prior.log_prob(kernels).isfinite().all()
    layer = kind(4, 8, shape[1:])
    assert apply_(layer, prior, seed=0, strict=True).initialized == [""] and layer.weight.isfinite().all()


def test_the_papers_networks_are_for_planes():
    with pytest.raises(ValueError, match=r"kernels \(1, 7, 7\) and \(1, 5, 5\); got \(1, 7\): use network='dense'"):
        KernelVAE((1, 7), network="paper")


@pytest.mark.parametrize("family", FAMILIES.values())
@pytest.mark.parametrize("shape", [(7,), (1, 2, 2, 2, 2), (1, 0, 7), (1, -7, 7), (1, 7.0, 7), (True, 7, 7), 7, "177"])
def test_kernel_shape_errors(family, shape):
    with pytest.raises(ValueError, match=r"kernel_shape must be \(channels, \*size\) with 1 to 3 sizes, .*; got"):
        family(shape)


def test_kernel_shape_has_a_limit():
    with pytest.raises(ValueError, match="at most 1048576 numbers; got"):
        Gaussian((1, 10**12, 10**12))


# Densities and draws


@pytest.fixture(scope="module", params=SMALL)
def gridded(request):
    """Returns a prior over 2 numbers, the points of a grid over its draws ``(m, m, 2)``, and their probabilities."""
    torch.manual_seed(0)
    prior = SMALL[request.param](bent(60)).eval()
    drawn = prior.sample(10_000, seeded(9)).flatten(1)
    size = 480 if prior.exact else 120
    axes = [
        torch.linspace(middle - 5 * (middle - low), middle + 5 * (high - middle), size, dtype=torch.float64)
        for low, middle, high in drawn.quantile(torch.tensor([0.01, 0.5, 0.99]).double(), dim=0).T
    ]
    points = torch.cartesian_prod(*axes)
    density = prior.log_prob if prior.exact else lambda kernels: prior.log_prob_by_quadrature(kernels, 80)
    with torch.no_grad():
        log_prob = density(points.view(-1, 1, 1, 2))
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    return prior, points.view(size, size, 2), (log_prob.exp() * cell).view(size, size)


def moments(points, share):
    mean = torch.einsum("ab,abi->i", share, points)
    return mean, torch.einsum("ab,abi,abj->ij", share, points - mean, points - mean)


def test_every_exact_family_is_asked():
    assert {SMALL[name](bent(60)).family for name in SMALL} == {*FAMILIES} - {
        "chain"
    }  # tests/priors/test_chain.py asks it


def test_density_integrates_to_one(gridded):
    prior, points, share = gridded
    assert share.sum().item() == pytest.approx(1, abs=2e-3)
    assert max(edge.sum() for edge in (share[0], share[-1], share[:, 0], share[:, -1])) < 1e-6
    mean, covariance = moments(points, share)
    cell = (points[1, 0, 0] - points[0, 0, 0]) * (points[0, 1, 1] - points[0, 0, 1])
    log_ratio = (share / cell).clamp_min(1e-300).log() - MultivariateNormal(mean, covariance).log_prob(points)
    divergence = (share * log_ratio).sum().item()
    assert divergence == pytest.approx(0, abs=1e-6) if prior.family in GAUSSIAN else divergence > 0.02


def test_draws_have_the_mean_and_covariance_of_the_density(gridded):
    prior, points, share = gridded
    mean, covariance = moments(points, share)
    drawn = prior.sample(100_000, seeded()).flatten(1)
    centred = drawn - mean
    products = torch.stack([centred[:, 0] ** 2, centred[:, 1] ** 2, centred[:, 0] * centred[:, 1]], 1)
    error = torch.cat([drawn.std(0), products.std(0)]) / math.sqrt(len(drawn))
    expected = torch.stack([mean[0], mean[1], covariance[0, 0], covariance[1, 1], covariance[0, 1]])
    found = torch.cat([drawn.mean(0), products.mean(0)])
    assert ((found - expected).abs() / error).max() < 4.5


def test_draws_fill_the_plane_as_the_density_says(gridded):
    prior, points, share = gridded
    drawn, width = prior.sample(100_000, seeded(1)).flatten(1), 12 if prior.exact else 6  # grid points along a cell
    size = len(points) // width
    step = torch.stack([points[1, 0, 0] - points[0, 0, 0], points[0, 1, 1] - points[0, 0, 1]])
    place = ((drawn - points[0, 0]) / step + 0.5).floor().long().div(width, rounding_mode="floor").clamp(0, size - 1)
    found = torch.bincount(place[:, 0] * size + place[:, 1], minlength=size * size)
    expected = len(drawn) * share.view(size, width, size, width).sum((1, 3)).flatten()
    many = expected > 30
    assert many.sum() > 30 and expected[many].sum() > 0.95 * len(drawn)
    assert ((found - expected)[many].abs() / expected[many].sqrt()).max() < 5
    assert abs((found - expected)[~many].sum()) < 5 * expected[~many].sum().sqrt()


@pytest.mark.parametrize("family", MIDDLE)
def test_draws_and_density_satisfy_steins_identities_in_six_dimensions(family):
    torch.manual_seed(0)
    kernels = (normal(80, 6) @ normal(6, 6, seed=1) + normal(6, seed=2)).exp().clamp_max(3).view(-1, 1, 3, 2)
    prior = MIDDLE[family](kernels).eval()
    drawn = prior.sample(20_000, seeded()).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(drawn).sum(), drawn)
    white = prior.whitening(drawn.detach().flatten(1))
    score = torch.func.vmap(torch.func.jacrev(lambda u: prior.whitening.inverse(u[None])[0]))(white).mT @ score.view(
        -1, 6, 1
    )
    products = torch.cat([score, score * white[:, None] + torch.eye(6)], 2)  # E ∂log p = 0, E u ∂log p = -I
    error = products.std(0) / math.sqrt(len(products))
    assert (products.mean(0).abs() / error).max() < 4.5 and error.max() < 0.1
