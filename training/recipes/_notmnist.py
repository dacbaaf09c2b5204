"""What the notMNIST recipes share: the source networks at the size of a CPU, and the stages of one kernel size."""

import dataclasses
from collections.abc import Mapping

from training.engine.stage import Stage
from training.experiments.density import Density
from training.fits.base import Fit
from training.fits.density import FitDensity
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.fits.vae import FitVAE
from training.kernels.collect import Kernels
from training.kernels.sources import Sources
from training.recipes import Fields

FOLDER = "notmnist"
PLAIN: Fields = {  # the control: the best of 5 to 10 full-covariance Gaussians
    "components": (5, 6, 7, 8, 9, 10),
    "shrinkages": (3.0, 10.0, 30.0, 100.0),
    "scales": (1.0,),
    "restarts": 1,
}


def sources(smoke: bool) -> Sources:
    """Returns 128 networks of 32 and 64 filters; the paper has 100 of 256 and 512.

    The settings are for a sample of 9,000 notMNIST images, not for all 60,000. Batches of 16 at learning rate 3e-3 for
    20 epochs are 11,240 steps with a summed learning rate of 16.9, where the paper's 23,400 steps at 1e-3 sum to 11.7.
    Fewer or smaller steps leave the noise of the initialisation in the kernels.
    """
    if smoke:
        return Sources(filters=(24, 8), networks=8, epochs=1, batch_size=64, lr=3e-3)
    return Sources(filters=(32, 64), networks=128, epochs=20, batch_size=16, lr=3e-3, precision="bfloat16")


def stages(size: str, layer: str, mixture: FitMixture, trained: Mapping[str, Fit], smoke: bool) -> dict[str, Stage]:
    """Returns the stages of one kernel size: sources, kernels, the families fitted to them and their comparison.

    Of the 128 networks 16 are held out for the test and 12 for model selection.

    Args:
        size: ``7x7`` or ``5x5``.
        layer: The convolution's name.
        mixture: The mixture that is bundled.
        trained: The families that are trained by gradient, by stage.
        smoke: Whether to shrink everything.
    """
    kernels = f"kernels_{size}"
    few: Fields = {"components": (2,), "shrinkages": (100.0,)} if smoke else {}
    fits = {
        f"gaussian_{size}": FitGaussian((kernels,), f"notmnist-{size}-gaussian"),
        f"mixture_{size}": FitMixture((kernels,), f"notmnist-{size}-mixture", **PLAIN | few),
        f"scale_mixture_{size}": dataclasses.replace(mixture, **few, restarts=2) if smoke else mixture,
        f"kde_{size}": FitDensity((kernels,), f"notmnist-{size}-kde"),
        **trained,
    }
    validation, test = (1, 2) if smoke else (12, 16)
    return {
        "sources": sources(smoke),
        kernels: Kernels(layer=layer, validation_networks=validation, test_networks=test),
        **fits,
        f"density_{size}": Density((kernels, *fits), name=f"density_notmnist_{size}"),
    }


def paper_vae(size: str, latent_dim: int, epochs: int) -> FitVAE:
    """Returns the fit of the paper's VAE, to kernels that are not whitened."""
    settings: Fields = {"network": "paper", "latent_dim": latent_dim, "whiten": False, "min_scale": 1e-3}
    return FitVAE((f"kernels_{size}",), f"notmnist-{size}-h1", epochs=epochs, **settings)
