"""A mixture around given filters and their opposites, and the filter that passes its input on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dwp_init
from dwp_init import GaussianMixture, save_prior
from training.engine.stage import Context, Stage
from training.fits.score import FITTED
from training.kernels.master_filters import FILTERS_FILE, master_filters

_DRAWS = 20_000


@dataclass(frozen=True)
class MixFilters(Stage):
    """Makes a mixture of narrow Gaussians around the eight master key filters ± and the filter with a 1 in its middle.

    All have a root mean square of 1. The other filters share what the one that passes its input on leaves, evenly.
    Under ``--smoke`` the filters are random.

    Args:
        name: Name of the prior.
        passing: Probability of the filter that passes its input on.
        spread: Standard deviation of each Gaussian, along every axis.
    """

    name: str = "my-filters"
    passing: float = 0.5
    spread: float = 0.12

    def other_inputs(self) -> dict[str, Any]:
        return {FILTERS_FILE.name: FILTERS_FILE.sha256}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        if not 0 < self.passing < 1:
            raise ValueError(f"passing must be above 0 and below 1; got {self.passing:g}")
        if not 0 < self.spread < 1:
            raise ValueError(f"spread must be above 0 and below 1; got {self.spread:g}")
        filters = _filters(context)
        prior = _mixture(filters, self.passing, self.spread)
        found = _cosines(prior.sample(_DRAWS, torch.Generator().manual_seed(0)), filters)
        origin = {"license": "CC-BY-4.0", "attribution": _ATTRIBUTION, "trained_on": "ImageNet"}
        prior.details = {
            "name": self.name,
            "license": "CC-BY-4.0",
            "source": {
                "given_filters": len(filters),
                "dataset": "ImageNet",
                "kind": "depthwise",
                "synthetic": context.smoke,
                "origins": {FILTERS_FILE.address.split()[0]: origin},
            },
            "fit": {
                "passing": self.passing,
                "spread": self.spread,
                "closest_of_20000_draws": [round(cosine, 3) for cosine in found],
            },
            "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
        }
        save_prior(prior, folder / FITTED)
        return {"family": prior.family, "least_cosine": min(found)}


_ATTRIBUTION = "the eight master key filters of Kiasari et al., NeurIPS 2025, at unit root mean square"


def _filters(context: Context) -> Tensor:
    if context.smoke:
        filters = torch.randn(8, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    else:
        filters = master_filters(FILTERS_FILE.find(context.data_root))
    return filters / filters.square().mean((1, 2, 3), keepdim=True).sqrt()


def _mixture(filters: Tensor, passing: float, spread: float) -> GaussianMixture:
    """Returns the mixture around filters ``(n, 1, k, k)`` of odd k."""
    count, dim = len(filters), filters[0].numel()
    middle = torch.zeros(1, dim)
    middle[0, dim // 2] = dim**0.5
    flat = filters.flatten(1)
    prior = GaussianMixture(tuple(filters.shape[1:]), 2 * count + 1).eval()
    prior.loc.copy_(torch.cat([flat, -flat, middle]))
    prior.scale_tril.mul_(spread)
    prior.weight.copy_(torch.tensor([*[(1 - passing) / (2 * count)] * 2 * count, passing])[:, None])
    return prior


def _cosines(draws: Tensor, filters: Tensor) -> list[float]:
    """Returns for each filter the cosine of the draw that is closest to it."""
    draws, filters = (kernels.flatten(1) / kernels.flatten(1).norm(dim=1, keepdim=True) for kernels in (draws, filters))
    found: list[float] = (filters @ draws.mT).amax(1).tolist()
    return found
