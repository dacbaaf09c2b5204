from dataclasses import replace

import torch

from tests.training.fits.common import QUICK, mixture


def test_several_importance_samples_tighten_what_is_maximised() -> None:
    torch.manual_seed(0)
    kernels = mixture(500, 0)
    prior = QUICK.build((1, 3, 3))
    bounds = []
    for samples in (1, 50):
        torch.manual_seed(0)
        bounds.append(replace(QUICK, importance_samples=samples).bound(prior, kernels).mean().item())
    torch.manual_seed(0)
    assert bounds[0] == prior.elbo(kernels).mean().item() and bounds[1] > bounds[0] + 0.02
