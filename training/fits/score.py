"""How good priors are: log p of held-out kernels."""

from typing import Any

import torch
from torch import Tensor

from dwp_init import KernelVAE, Prior
from training.images.split import thin

FITTED, SCORES = "prior", "scores.safetensors"  # of a fit: the folder of its prior, and its log p of test kernels
SAMPLES = 1000
MOST = 3000
SMOKE = {"samples": 30, "most": 200}


@torch.no_grad()
def score(prior: Prior, kernels: Tensor, samples: int = SAMPLES, most: int = MOST) -> tuple[Tensor, dict[str, Any]]:
    """Estimates log p of kernels under a prior, in nats per kernel.

    Args:
        prior: The prior; left in evaluation mode.
        kernels: ``(n, c, *size)``; of more than ``most``, the evenly spaced ones of :func:`thin` are used.
        samples: Draws per kernel where log p is a lower bound, such as a VAE's latents; the seed is fixed.
        most: Maximum number of kernels used.

    Returns:
        log p of each kernel used, on the CPU; and a dictionary with their mean ``log_prob``, the number of ``kernels``
        and the ``kind``, ``exact`` or ``bound``. A bound also has ``monte_carlo_error``, the standard error of that
        mean, and ``latents_per_kernel``, the draws used; the bound of a VAE its ``elbo`` too.
    """
    prior.eval()
    extra: dict[str, Any]
    kernels = thin(kernels, most).to(prior.device)
    if prior.exact:
        values, extra = torch.cat([prior.log_prob(part) for part in torch.split(kernels, 500)]), {"kind": "exact"}
    else:
        generator = torch.Generator(prior.device).manual_seed(0)
        values, error = prior.estimate(kernels, samples, generator)
        extra = {"kind": "bound", "monte_carlo_error": round((error.norm() / len(error)).item(), 4)}
        if isinstance(prior, KernelVAE):
            elbo = torch.stack([prior.elbo(kernels, generator) for _ in range(20)]).mean()
            extra["elbo"] = round(elbo.item(), 3)
        extra["latents_per_kernel"] = samples
    return values.cpu(), {"log_prob": round(values.mean().item(), 3), "kernels": len(values), **extra}


def clustered_error(values: Tensor, cluster: Tensor) -> float:
    """Returns the standard error of a mean of values that are alike within clusters, such as networks.

    Args:
        values: ``(n,)``.
        cluster: The cluster of each value, ``(n,)``; if there is only one, each value counts as a cluster of its own.
    """
    labels = torch.unique(cluster, return_inverse=True)[1]
    if labels.max() == 0:
        labels = torch.arange(len(values))
    values = values.double()
    sums = torch.zeros(int(labels.max()) + 1, dtype=values.dtype).index_add(0, labels, values - values.mean())
    count = len(sums)
    return (count / max(count - 1, 1) * sums.square().sum()).sqrt().item() / len(values)
