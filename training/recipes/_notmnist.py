"""What the notMNIST recipes share: the source networks at the size of a CPU, and the stages of one prior."""

from training.evaluate import Density
from training.fit import Fit
from training.kernels import Kernels
from training.sources import Sources
from training.stages import Stage

FOLDER = "notmnist"


def sources(smoke: bool) -> Sources:
    """128 networks of 32 and 64 filters, against the paper's 100 of 256 and 512.

    Meant for a sample of 9,000 notMNIST images, not for all 60,000: batches of 16 at learning rate 3e-3 for 20 epochs
    are 11,240 steps with a summed learning rate of 16.9, where the paper's 23,400 steps at 1e-3 sum to 11.7. Fewer or
    smaller steps leave the noise of the initialisation in the kernels.
    """
    if smoke:
        return Sources(filters=(24, 8), networks=8, epochs=1, batch_size=64, lr=3e-3)
    return Sources(filters=(32, 64), networks=128, epochs=20, batch_size=16, lr=3e-3, precision="bfloat16")


def stages(size: str, layer: str, dense: Fit, latent_dim: int, epochs: int, smoke: bool) -> dict[str, Stage]:
    """The stages of one prior: sources, kernels, the three fits and their comparison.

    Of the 128 networks 16 are held out for the test and 12 for model selection.

    Args:
        size: ``7x7`` or ``5x5``.
        layer: The convolution's name.
        dense: The dense VAE.
        latent_dim: Dimensions of z in the paper's VAE, which sees raw kernels.
        epochs: Its passes over the kernels.
        smoke: Whether to shrink everything.
    """
    kernels = f"kernels_{size}"
    paper = {"network": "paper", "latent_dim": latent_dim, "whiten": False, "min_scale": 1e-3}
    fits = {
        f"gaussian_{size}": Fit((kernels,), f"notmnist-{size}-gaussian", family="gaussian"),
        f"vae_{size}": dense,
        f"h1_{size}": Fit((kernels,), f"notmnist-{size}-h1", epochs=1 if smoke else epochs, **paper),
    }
    validation, test = (1, 2) if smoke else (12, 16)
    return {
        "sources": sources(smoke),
        kernels: Kernels(layer=layer, validation_networks=validation, test_networks=test),
        **fits,
        f"density_{size}": Density((kernels, *fits), name=f"density_notmnist_{size}"),
    }
