"""Latent-variable priors whose density is known."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal

from dwp_init.priors import KernelChain, KernelVAE
from tests.priors.families import normal, seeded


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
