"""The colour stems of networks on CIFAR-10, drawn jointly or channel by channel as in the paper.

    python -m training run joint_stem --data-root DATA --workers 2 --record

Expected: the paper draws the three channels of a colour kernel independently (Eq. 5), so their colours cannot agree.
Found: ``training/results/joint_stem.csv``, and the stems in ``joint_stem.png``.
Departures: two-layer networks of the notMNIST kind, 2 epochs each; a demonstration, whose priors are not bundled.
"""

from training.engine.stage import Stage
from training.experiments.joint_stem import JointDensity
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.kernels.collect import JointKernels, Kernels
from training.kernels.sources import Sources
from training.recipes import Fields

FOLDER = "cifar10"


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns sources, kernels and fits in both ways, and their comparison."""
    size: Fields = {"filters": (64, 16), "networks": 32, "epochs": 2}
    if smoke:
        size = {"filters": (16, 4), "networks": 10, "epochs": 1}
    held_out: Fields = {
        "layer": "features.conv1",
        "validation_networks": 2 if smoke else 4,
        "test_networks": 2 if smoke else 5,
    }
    grid: Fields = {"components": (2,), "shrinkages": (100.0,)} if smoke else {"components": (1, 2, 4, 8, 16)}
    grid["scales"] = (0.5, 0.7, 1.0, 1.4)
    made: dict[str, Stage] = {
        "sources": Sources(data="cifar10", batch_size=32, lr=3e-3, precision="bfloat16", **size),
        "kernels_joint": JointKernels(**held_out),
        "kernels_single": Kernels(**held_out),
        "gaussian_joint": FitGaussian(("kernels_joint",), "stem-gaussian"),
        "gaussian_single": FitGaussian(("kernels_single",), "channel-gaussian"),
        "mixture_joint": FitMixture(("kernels_joint",), "stem-mixture", **grid),
        "mixture_single": FitMixture(("kernels_single",), "channel-mixture", **grid),
    }
    fits = ("gaussian_joint", "gaussian_single", "mixture_joint", "mixture_single")
    return made | {"joint_stem": JointDensity(("kernels_joint", *fits))}
