"""Small networks, images and priors for the tests of Bayesian training."""

import torch
from torch import Tensor, nn

from dwp_init import Gaussian, KernelVAE
from dwp_init.bayes import KL, BayesConv2d, Objective, RelativeBayesConv2d, bayesianize_

KINDS = (BayesConv2d, RelativeBayesConv2d)
LAYERS = {
    "plain": nn.Conv2d(3, 4, 3),
    "strided": nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(3, 4, 3, dilation=2, bias=False),
    "same": nn.Conv2d(3, 4, 3, padding="same"),
    "reflecting": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4),
    "pointwise": nn.Conv2d(3, 4, 1),
}


def network(seed: int = 0, norm: bool = False, bayesian: bool = True, channels: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels) if norm else nn.Identity(), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(channels, 4, 5), nn.Flatten(), nn.Linear(16, 2))
    if bayesian:
        bayesianize_(model, scale=0.05)
    return model


def images(networks: int = 1, n: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    labels = torch.arange(n).remainder(2).expand(networks, -1).contiguous()
    pictures = torch.rand(networks, n, 1, 8, 8, generator=generator) * 0.5
    pictures[..., :4] += 0.5 * labels[..., None, None, None]
    return pictures, labels


def gaussian(k: int) -> Gaussian:
    return Gaussian((1, k, k)).fit_(0.2 * torch.randn(200, 1, k, k, generator=torch.Generator().manual_seed(k)))


def vae(k: int, network: str = "dense") -> KernelVAE:
    torch.manual_seed(k)
    return KernelVAE((1, k, k), network, latent_dim=2, **{"hidden": 8} if network == "dense" else {})


def objective(terms: KL | list[KL], kernels: int | None = None, **options: object) -> Objective:
    return Objective(network(**options), terms, kernels)
