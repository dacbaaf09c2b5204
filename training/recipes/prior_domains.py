"""Priors of other domains than photographs: restored images, brain scans, and sound; from networks of others.

    python -m training run prior_domains --data-root DATA

Harvests the networks of ``restoration_sources.toml``, ``brain_mri_sources.toml`` and ``audio_sources.toml``, each
layer's kernels at a root mean square of 1. One package is fetched by digest; DATA must have the other files.

- ``restoration``, dense 3×3: fitted to an upscaling network; a network that removes noise is held out as a whole.
- ``brain-mri``, dense 3×3×3: fitted to two networks of the same authors; one of others is held out as a whole.
- ``audio``, dense of length 3, and ``audio-dw3x3``, depthwise: each has one network alone, so that a tenth of its
  kernels, at random, is held out. How well these priors describe other networks is not known.

There is none of faces: ``unseen_networks`` describes a network of faces better by kernels of photographs and others.

Expected: kernels that differ from a Gaussian, as those of photographs do.
Found: ``model_cards/`` has a card for each prior.
Cost: a few minutes on one core, and 11 MB of downloads.
"""

from training.engine.stage import Stage
from training.fits.mixture import FitMixture
from training.kernels.harvested import HarvestedKernels
from training.recipes import Fields

FOLDER = "domains"
DOMAIN_FITS: dict[str, Fields] = {
    "restoration": {"manifest": "training/recipes/restoration_sources.toml", "size": (3, 3), "test": ("*dncnn*",)},
    "brain-mri": {"manifest": "training/recipes/brain_mri_sources.toml", "size": (3, 3, 3), "test": ("*deepbrain*",)},
    "audio": {"manifest": "training/recipes/audio_sources.toml", "size": (3,)},
    "audio-dw3x3": {"manifest": "training/recipes/audio_sources.toml", "kind": "depthwise", "size": (3, 3)},
}
PRIORS = {name: f"mixture_{name}" for name in DOMAIN_FITS}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the kernels of each prior with the fit to them.

    Args:
        smoke: Whether to shrink everything.
    """
    grid: Fields = {"components": (2, 4, 8, 16), "shrinkages": (3.0, 10.0, 30.0, 100.0), "restarts": 2}
    if smoke:
        grid = {"components": (2,), "shrinkages": (100.0,), "restarts": 1}
    made: dict[str, Stage] = {}
    for name, fields in DOMAIN_FITS.items():
        made[f"kernels_{name}"] = HarvestedKernels(**fields)
        made[PRIORS[name]] = FitMixture((f"kernels_{name}",), name, **grid)
    return made
