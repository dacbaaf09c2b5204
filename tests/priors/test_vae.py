"""Kernel VAEs: their networks, and their bounds against closed forms and quadrature."""

import itertools
import math

import pytest
import torch

from dwp_init.priors import KernelChain, KernelVAE
from tests.priors.families import bent, seeded
from tests.priors.known import bumpy, linear_gaussian, repeated


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


@pytest.mark.parametrize("value", [1, "no", None])
def test_whiten_must_be_a_bool(value):
    with pytest.raises(TypeError, match=f"whiten must be True or False; got {value!r}"):
        KernelVAE((1, 3, 3), whiten=value)


def test_small_numbers_are_refused():
    with pytest.raises(ValueError, match="min_scale must be 1e-06 or more; got 1e-30"):
        KernelVAE((1, 3, 3), min_scale=1e-30)
    vae = KernelVAE((1, 1, 2), latent_dim=1, hidden=4)
    with pytest.raises(ValueError, match="points must be 2 or more; got 1"):
        vae.log_prob_by_quadrature(bent(60), points=1)
    with pytest.raises(ValueError, match="width must be a number above 0 and below 1,000,000; got -1"):
        vae.log_prob_by_quadrature(bent(60), width=-1)


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


def test_importance_bound_from_the_prior_of_the_latents():
    """Needs no encoder, and reaches the truth too, with more draws."""
    vae, truth, x = linear_gaussian(fidelity=0.8)
    kernels, generator = x.view(-1, 1, 2, 2), seeded()
    vae.encoder = None
    with torch.no_grad():
        bounds = [
            torch.stack([vae.importance_bound(kernels, draws, generator, proposal="prior") for _ in range(20)]).mean()
            for draws in (2, 20, 4000)
        ]
    assert bounds[0] < bounds[1] - 0.05 and bounds[1] < bounds[2]
    assert bounds[2].item() == pytest.approx(truth.log_prob(x).mean().item(), abs=0.02)
    with pytest.raises(ValueError, match="proposal must be one of 'encoder', 'prior'; got 'q'"):
        vae.importance_bound(kernels, 2, proposal="q")


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
