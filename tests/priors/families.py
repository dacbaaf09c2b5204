"""Small priors of every family, and kernels to fit them to."""

import torch

from dwp_init.priors import (
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
    PatchWhitening,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def bent(n, seed=0):
    """Draws kernels ``(n, 1, 1, 2)`` along a parabola, of scale 0.1."""
    x, y = normal(2, n, seed=seed)
    return 0.1 * torch.stack([1 + x, 0.7 * x.square() + 0.4 * y], 1).view(n, 1, 1, 2)


def correlated(n, dim):
    """Draws vectors with a full covariance and a mean, in float32."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(dim, dim, generator=generator)
    return 0.1 * torch.randn(n, dim, generator=generator) @ mix + 0.05 * torch.randn(dim, generator=generator)


def shaken(prior, size):
    """Moves all parameters, away from those of networks that start at zero."""
    with torch.no_grad():
        for i, parameter in enumerate(prior.parameters()):
            parameter += size * normal(*parameter.shape, seed=i)
    return prior


def perturbed(prior, kernels, size):
    prior.whitening.fit_(kernels.flatten(1))
    return shaken(prior, size)


def by_depth(*layers):
    mixtures = [GaussianMixture((1, 1, 2), 2, (0.5, 1.5)).double().fit_(k, generator=seeded()) for k in layers]
    return MixtureByDepth.stack([i / (len(layers) - 1) for i in range(len(layers))], mixtures).double()


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


PRIORS = {
    "gaussian": lambda: Gaussian((1, 3, 3)),
    "gaussian-channels": lambda: Gaussian((2, 3, 2)),
    "dense": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=8),
    "dense-options": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=4, dropout=0.2, min_scale=0.1, whiten=False),
    "dense-channels": lambda: KernelVAE((2, 3, 2), latent_dim=2, hidden=8),
    "mixture": lambda: GaussianMixture((1, 3, 3), components=3, scales=(0.5, 1.0)),
    "mixture-channels": lambda: GaussianMixture((2, 3, 2), components=2),
    "by-depth": lambda: MixtureByDepth((1, 3, 3), (0.2, 1.0), (3, 2), (0.5, 1.0)),
    "kde": lambda: KernelDensity((1, 3, 3), count=200),
    "kde-channels": lambda: KernelDensity((2, 3, 2), count=200),
    "flow": lambda: Flow((1, 3, 3), transforms=2, hidden=8),
    "flow-coupling": lambda: Flow((1, 3, 3), network="nsf", transforms=2, hidden=8, coupling=True),
    "autoregressive": lambda: Autoregressive((1, 3, 3), hidden=8, mixtures=2, dropout=0.1),
    "autoregressive-channels": lambda: Autoregressive((2, 3, 2), hidden=8, mixtures=2),
    "chain": lambda: KernelChain((1, 3, 3), transitions=2, latent_dim=2, hidden=8),
    "chain-0": lambda: KernelChain((1, 3, 3), transitions=0, latent_dim=2, hidden=8),
    "patch-whitening": lambda: PatchWhitening((2, 3, 3)),
    "paper-7x7": lambda: KernelVAE((1, 7, 7), network="paper", latent_dim=2),
    "paper-5x5": lambda: KernelVAE((1, 5, 5), network="paper", latent_dim=4),
}


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


SMALL = {
    "gaussian": lambda k: Gaussian((1, 1, 2)).double().fit_(k),
    "mixture": lambda k: GaussianMixture((1, 1, 2), 3, (0.5, 1.5)).double().fit_(k, generator=seeded()),
    "mixture-by-depth": lambda k: by_depth(k[: len(k) // 2], 3 * k[len(k) // 2 :]),
    "kde": lambda k: KernelDensity((1, 1, 2), count=len(k)).double().fit_(k),
    "patch-whitening": lambda k: PatchWhitening((1, 1, 2)).double().fit_(k),
    "flow": lambda k: perturbed(Flow((1, 1, 2), transforms=2, hidden=8).double(), k, 0.3),
    "flow-nsf": lambda k: perturbed(Flow((1, 1, 2), "nsf", 2, 8, coupling=True).double(), k, 0.3),
    "autoregressive": lambda k: perturbed(Autoregressive((1, 1, 2), hidden=8, mixtures=2).double(), k, 0.5),
    "vae": lambda k: perturbed(KernelVAE((1, 1, 2), latent_dim=1, hidden=8, min_scale=0.3).double(), k, 0.5),
}


MIDDLE = {
    "gaussian": lambda k: Gaussian((1, 3, 2)).double().fit_(k),
    "mixture": lambda k: GaussianMixture((1, 3, 2), 3, (0.5, 1.5)).double().fit_(k, generator=seeded()),
    "kde": lambda k: KernelDensity((1, 3, 2), count=len(k)).double().fit_(k),
    "flow": lambda k: perturbed(Flow((1, 3, 2), transforms=2, hidden=8).double(), k, 0.15),
    "autoregressive": lambda k: perturbed(Autoregressive((1, 3, 2), hidden=8, mixtures=2).double(), k, 0.3),
}
