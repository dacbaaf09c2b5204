"""What the notMNIST recipes share: the source networks at the size of a CPU, and the stages of one prior."""

from training.evaluate import Density
from training.fit import Fit
from training.kernels import Kernels
from training.sources import Sources
from training.stages import Stage

FOLDER = "notmnist"


def sources(smoke: bool) -> Sources:
    """128 networks of 32 and 64 filters, against the paper's 100 of 256 and 512.

    The local notMNIST has 9,000 training images, not 60,000: batches of 16 at learning rate 3e-3 for 20 epochs give
    11,240 steps and a summed learning rate of 16.9, where the paper's 23,400 steps at 1e-3 sum to 11.7. Fewer or
    smaller steps leave the noise of the initialisation in the kernels.
    """
    if smoke:
        return Sources(filters=(24, 8), networks=8, epochs=1, batch_size=64, lr=3e-3)
    return Sources(filters=(32, 64), networks=128, epochs=20, batch_size=16, lr=3e-3, precision="bfloat16")


def kernels(layer: str, smoke: bool) -> Kernels:
    """One layer's kernels; 16 of the 128 networks are held out for the test and 12 for model selection."""
    held_out = (1, 2) if smoke else (12, 16)
    return Kernels(layer=layer, validation_networks=held_out[0], test_networks=held_out[1])


def stages(size: str, layer: str, dense: Fit, paper: Fit, smoke: bool) -> dict[str, Stage]:
    """The stages of one prior: sources, kernels, the three fits and their comparison.

    Args:
        size: ``7x7`` or ``5x5``.
        layer: The convolution's name.
        dense: Settings of the dense VAE.
        paper: Settings of the paper's.
        smoke: Whether to shrink everything.
    """
    fits = {
        f"gaussian_{size}": Fit((f"kernels_{size}",), f"notmnist-{size}-gaussian", family="gaussian"),
        f"vae_{size}": dense,
        f"h1_{size}": paper,
    }
    return {
        "sources": sources(smoke),
        f"kernels_{size}": kernels(layer, smoke),
        **fits,
        f"density_{size}": Density((f"kernels_{size}", *fits), name=f"density_notmnist_{size}"),
    }
