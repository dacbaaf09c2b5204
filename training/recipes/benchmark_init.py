"""Six kinds of networks on CIFAR-10 from dwp and from the initialisations that people use, each at its own rate.

    python -m training run benchmark_init --data-root DATA --workers 2 --record

On an accelerator ``--device cuda --workers 4`` and for each stage, such as ``benchmark_resnet``,
``benchmark_resnet.filters=16,32,64 benchmark_resnet.batch_size=128 benchmark_resnet.precision=bfloat16
benchmark_resnet.test_images=10000 benchmark_resnet.marks=50,100,200,500,1000,2000 benchmark_resnet.seeds=8
benchmark_resnet.rate_seeds=2``. Some of :data:`training.starts.inits.INITS` are left out to save time:
``benchmark_resnet.inits=`` names those to compare.

Expected: the paper has no such table. Normalised networks leave an initialisation little room, depthwise kernels and
networks without normalisation more.
Found: ``model_cards/benchmark.md``. For each stage ``<stage>.csv``, each seed in ``<stage>_runs.csv``, the rates in
``<stage>_rates.csv`` and the figure in ``<stage>.png``.
Departures: narrow networks and 200 steps, for a CPU, and one run to choose each rate by; no shifts or flips. Learned
kernels are not in the bundle: a recipe of one's own can name kernels stages in ``needs``. The closed-form covariance of
Trockman et al. (2023) is left out, for the formula could not be confirmed from a source.
"""

from typing import Any

from training.engine.stage import Stage
from training.experiments.benchmark_init import BenchmarkInit
from training.experiments.compare_inits import BASELINE
from training.starts.fills import DEFAULT, DWP, DWP_ORTHOGONAL
from training.starts.inits import DELTA, DWP_CENTRED, DWP_LSUV, FROM_PRIORS, LSUV, NOISE

FOLDER = "cifar10"
SOME = (BASELINE, DEFAULT, LSUV, DWP, DWP_ORTHOGONAL, DWP_CENTRED)
MORE = (*SOME, NOISE, DWP_LSUV)
NETWORKS: dict[str, dict[str, Any]] = {  # in the order in which they are run
    "resnet": {"filters": (8, 16, 32), "inits": MORE},
    "convmixer": {"filters": (32,), "inits": SOME},
    "cifar": {"filters": (16, 32, 32), "inits": MORE},
    "convnext": {"filters": (24, 48), "inits": SOME},
    "vgg": {"filters": (16, 32, 64), "inits": MORE},
    "mobilenet": {"filters": (8, 12, 24), "inits": SOME},
}
VARIANTS: dict[str, dict[str, Any]] = {  # few labels, and convolutions as they are drawn
    "convmixer_1000_labels": {"network": "convmixer", "labels": 1000},
    "convmixer_frozen": {"network": "convmixer", "frozen": True},
    "resnet_1000_labels": {"network": "resnet", "labels": 1000},
    "cifar_frozen": {"network": "cifar", "frozen": True},
}
SMALL: dict[str, Any] = {
    "seeds": 2,
    "rates": (1e-3, 1e-2),
    "rate_seeds": 1,
    "hold_out": 64,
    "test_images": 64,
    "batch_size": 16,
    "marks": (1, 2),
    "inits": (BASELINE, NOISE, DELTA, *FROM_PRIORS),
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """A stage for each network, then those of some of them with few labels or frozen convolutions."""
    chosen: dict[str, dict[str, Any]] = {}
    for network, settings in NETWORKS.items():
        small = SMALL | {"filters": (4,) * len(settings["filters"])} if smoke else {}
        chosen[network] = {"network": network, "seeds": 5, "rate_seeds": 1, "hold_out": 2000, **settings, **small}
    for name, settings in VARIANTS.items():
        few = {"labels": 20} if smoke and "labels" in settings else {}
        chosen[name] = chosen[settings["network"]] | {"inits": (BASELINE, DWP_ORTHOGONAL), **settings, **few}
    return {
        f"benchmark_{name}": BenchmarkInit(name=f"benchmark_{name}", priors=("natural",), **settings)
        for name, settings in chosen.items()
    }
