"""A Bayesian linear read-out of fixed features in closed form, with its strength of regularisation by evidence."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS_TRIED = 61  # values of λ tried, evenly spaced in its logarithm
RANGE = (1e-6, 1e3)  # of λ over the mean eigenvalue of the features' products


class Readout(NamedTuple):
    """The read-out of greatest evidence.

    Attributes:
        dual: (K + λ I)⁻¹ Y, ``(n, classes)``, by which the products of other images are multiplied.
        strength: λ, the precision of the weights over that of the noise.
        log_evidence: log p(Y | λ, β) at the noise precision β of greatest evidence, in nats.
    """

    dual: Tensor
    strength: float
    log_evidence: float


def fit_readout(gram: Tensor, targets: Tensor) -> Readout:
    """Fits y = Φ v + noise for each class, v ~ N(0, I/α) and noise ~ N(0, 1/β), to the λ = α/β of greatest evidence.

    Given λ, the β of greatest evidence is known in closed form (MacKay 1992), and one eigendecomposition of ΦΦᵀ serves
    every λ. The prediction is that of ridge regression of strength λ.

    Args:
        gram: Products of the features, ΦΦᵀ, ``(n, n)``.
        targets: Y, ``(n, classes)``.

    Raises:
        ValueError: The features are all 0.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    values = values.clamp_min(0)
    if not values.sum() > 0:
        raise ValueError(f"the features of all {len(gram)} images are the same; there is nothing to read out")
    rotated = vectors.T @ targets.double()
    low, high = (math.log10(bound) for bound in RANGE)
    strengths = values.mean() * torch.logspace(low, high, STRENGTHS_TRIED, dtype=torch.float64, device=values.device)
    evidences = torch.stack([log_evidence(values, rotated, strength) for strength in strengths])
    best = strengths[evidences.argmax()]
    dual = vectors @ (rotated / (values + best)[:, None])
    return Readout(dual, best.item(), evidences.max().item())


def log_evidence(values: Tensor, rotated: Tensor, strength: Tensor) -> Tensor:
    """Returns log p(Y | λ) at the best noise precision, ``()`` in nats.

    Args:
        values: Eigenvalues of ΦΦᵀ, ``(n,)``.
        rotated: Y in the basis of the eigenvectors, ``(n, classes)``.
        strength: λ.
    """
    relative = 1 + values / strength  # variances over that of the noise
    count = rotated.numel()
    noise = (rotated.square() / relative[:, None]).sum() / count
    return -0.5 * (count * (2 * math.pi * noise).log() + rotated.shape[1] * relative.log().sum() + count)


def centred_products(gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Returns products of features from which the mean over the training images is subtracted, which fits a bias.

    Args:
        gram: Products of training images, ``(n, n)``.
        cross: Products of other images with them, ``(m, n)``.
    """
    column, mean = gram.mean(0), gram.mean()
    return gram - column - column[:, None] + mean, cross - column - cross.mean(1, keepdim=True) + mean
