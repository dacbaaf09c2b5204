"""The convolutional VAE of images of the paper's Table 3, and its ELBO in nats."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageVAE(nn.Module):
    """A VAE of binary 28×28 images: p(x|z) Bernoulli, q(z|x) normal with a diagonal covariance, p(z) = N(0, I).

    Table 3 gives the layers: Conv 64, 7×7, stride 2; Conv 128, 5×5; two linear layers to the latents; ConvT 128, 5×5;
    ConvT 64, 5×5, stride 2; ConvT 1, 5×5, stride 2. It states neither the number of latents nor the padding, and no
    number of latents gives the 1,641,665 parameters that it prints: with 77 latents there are 1,627,163 here, with 78
    there are 1,642,909. Here only the last layer is padded, so that its output is 28×28 instead of 29×29, and leaky
    ReLUs are between the layers, as in the paper's other networks.

    Args:
        latent_dim: Number of latents.
    """

    image_shape = (1, 28, 28)

    def __init__(self, latent_dim: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 64, 7, stride=2),
                relu1=nn.LeakyReLU(0.01),
                conv2=nn.Conv2d(64, 128, 5),
                relu2=nn.LeakyReLU(0.01),
                flatten=nn.Flatten(),
            )
        )
        self.loc = nn.Linear(128 * 7 * 7, latent_dim)
        self.log_scale = nn.Linear(128 * 7 * 7, latent_dim)
        self.decoder = nn.Sequential(
            OrderedDict(
                unflatten=nn.Unflatten(1, (latent_dim, 1, 1)),
                convt1=nn.ConvTranspose2d(latent_dim, 128, 5),
                relu1=nn.LeakyReLU(0.01),
                convt2=nn.ConvTranspose2d(128, 64, 5, stride=2),
                relu2=nn.LeakyReLU(0.01),
                convt3=nn.ConvTranspose2d(64, 1, 5, stride=2, padding=1, output_padding=1),
            )
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and logarithm of the scale of q(z|x), ``(n, latent_dim)`` each."""
        hidden = self.encoder(images)
        return self.loc(hidden), self.log_scale(hidden)

    def elbo(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Estimates log p(x) - KL(q(z|x) || p(z|x)) from one z per image, in nats, ``(n,)``.

        Args:
            images: ``(n, 1, 28, 28)`` of 0 and 1.
            generator: Generator of the noise, on the CPU, so that the noise is the same on every device.
        """
        loc, log_scale = self.encode(images)
        noise = torch.randn(loc.shape, generator=generator).to(loc.device)
        logits = self.decoder(loc + log_scale.exp() * noise)
        log_prob = -F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)
        return log_prob - kl_from_standard_normal(loc, log_scale)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws z from p(z) with a generator on the CPU and returns the means of p(x|z), ``(count, 1, 28, 28)``."""
        weight = self.loc.weight
        logits: Tensor = self.decoder(torch.randn(count, len(weight), generator=generator).to(weight.device))
        return logits.sigmoid()


def kl_from_standard_normal(loc: Tensor, log_scale: Tensor) -> Tensor:
    """Returns KL(N(loc, scale²) || N(0, 1)), summed over the last dimension, in nats."""
    return 0.5 * ((2 * log_scale).exp() + loc.square() - 1 - 2 * log_scale).sum(-1)


def binarize(images: Tensor) -> Tensor:
    """Makes pixels in [0, 1] black or white: 1 above a half, else 0."""
    return (images > 0.5).to(images.dtype)
