"""The default of ``apply_``'s scale: He's rms, keep and He's response in networks on CIFAR-10.

    python -m training run scale_default --data-root DATA --workers 2 --record

Expected: the paper has no such table. Smooth kernels amplify smooth inputs, so that at He's root mean square, as
they were drawn at first, the activations of a network without normalisation grow from layer to layer.
Found: ``training/results/scale_default.csv`` and ``scale_default.png``, paired differences after the last step;
``scale_default_<network>*.csv`` has every seed and rate. ``dwp, orthogonal`` has He's root mean square. Without
normalisation He's response is level with it in the narrow networks and behind it in the wide one, at another rate, and
ahead of Kaiming's in all three. At the same rate, which was tried after the test results were seen, it is level in the
wide one too: ``scale_default_vgg_wide.rates=0.001``, recorded in ``scale_default_vgg_wide_same_rate.csv``. PyTorch's
untouched scale, which ``natural, keep`` keeps, is too small there.
After ``scale_default_resnet.base=Kaiming``, which initialises all convolutions first, keep and fan_in are the same.
Departures: narrow networks and 200 steps, for a CPU, and one or two runs to choose each rate by.
"""

from training.engine.stage import Stage
from training.experiments.scale_default import ScaleDefault, ScaleSummary
from training.recipes import Fields
from training.starts.base import KAIMING
from training.starts.controls import DEFAULT
from training.starts.priors import DWP_ORTHOGONAL, NATURAL_FAN_IN, NATURAL_KEEP

FOLDER = "scale"
SCALES = (KAIMING, DEFAULT, DWP_ORTHOGONAL, NATURAL_KEEP, NATURAL_FAN_IN)
WITHOUT_KEEP = (KAIMING, DEFAULT, DWP_ORTHOGONAL, NATURAL_FAN_IN)
NO_NORM: Fields = {"rates": (5e-4, 1e-3, 3e-3)}  # without normalisation
NETWORKS_BY_SCALE: dict[str, Fields] = {  # in the order in which they are run
    "cifar": {"network": "cifar", "filters": (16, 32, 32), "rate_seeds": 2, **NO_NORM},
    "vgg": {"network": "vgg", "filters": (16, 32, 64), "rate_seeds": 2, **NO_NORM},
    "resnet": {"network": "resnet", "filters": (8, 16, 32)},
    "vgg_wide": {"network": "vgg", "filters": (32, 64, 128), **NO_NORM, "inits": WITHOUT_KEEP},
}
SMALL: Fields = {
    "seeds": 2,
    "rate_seeds": 1,
    "rates": (1e-3, 1e-2),
    "hold_out": 64,
    "test_images": 64,
    "batch_size": 16,
    "marks": (1, 2),
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns a stage for each network, then the table of all."""
    common: Fields = {"priors": ("natural",), "seeds": 8, "rate_seeds": 1, "hold_out": 2000}
    made: dict[str, Stage] = {}
    for network, settings in NETWORKS_BY_SCALE.items():
        name = f"scale_default_{network}"
        small = SMALL | {"filters": (4,) * len(settings["filters"])} if smoke else {}
        made[name] = ScaleDefault(**{"name": name, "inits": SCALES, **common, **settings, **small})
    return made | {"scale_default": ScaleSummary(tuple(made))}
