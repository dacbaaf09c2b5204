"""Six kinds of networks on CIFAR-10 from dwp and from the initialisations that people use, each at its own rate.

    python -m training run benchmark_init --data-root DATA --workers 2 --record

On an accelerator use ``--device cuda --workers 4`` and for each stage, such as ``benchmark_resnet``,
``benchmark_resnet.filters=16,32,64 benchmark_resnet.batch_size=128 benchmark_resnet.precision=bfloat16
benchmark_resnet.test_images=10000 benchmark_resnet.marks=50,100,200,500,1000,2000 benchmark_resnet.seeds=8
benchmark_resnet.rate_seeds=2``. Some of :data:`training.starts.base.STARTS` are left out to save time;
``benchmark_resnet.inits=`` names those to compare.

Expected: the paper has no such table. Normalised networks leave an initialisation little room, depthwise kernels and
networks without normalisation leave more.
Found: ``model_cards/benchmark.md``. Each stage has ``<stage>.csv``, each seed in ``<stage>_runs.csv``, the rates in
``<stage>_rates.csv`` and the figure in ``<stage>.png``.
Departures: narrow networks and 200 steps, for a CPU, and one run to choose each rate by; no shifts or flips. Learned
kernels are not in the bundle: a recipe of your own can name kernels stages in ``needs``.
"""

from training.engine.stage import Stage
from training.experiments.benchmark_init import BenchmarkInit
from training.recipes import Fields
from training.starts.base import KAIMING
from training.starts.controls import DEFAULT, DELTA, LSUV, NOISE
from training.starts.priors import DWP, DWP_CENTRED, DWP_LSUV, DWP_ORTHOGONAL

FOLDER = "cifar10"
FEW_STARTS = (KAIMING, DEFAULT, LSUV, DWP, DWP_ORTHOGONAL, DWP_CENTRED)
MORE_STARTS = (*FEW_STARTS, NOISE, DWP_LSUV)
COMPARED_NETWORKS: dict[str, Fields] = {  # in the order in which they are run
    "resnet": {"filters": (8, 16, 32), "inits": MORE_STARTS},
    "convmixer": {"filters": (32,), "inits": FEW_STARTS},
    "cifar": {"filters": (16, 32, 32), "inits": MORE_STARTS},
    "convnext": {"filters": (24, 48), "inits": FEW_STARTS},
    "vgg": {"filters": (16, 32, 64), "inits": MORE_STARTS},
    "mobilenet": {"filters": (8, 12, 24), "inits": FEW_STARTS},
}
VARIANTS: dict[str, Fields] = {  # few labels, and convolutions as they are drawn
    "convmixer_1000_labels": {"network": "convmixer", "labels": 1000},
    "convmixer_frozen": {"network": "convmixer", "frozen": True},
    "resnet_1000_labels": {"network": "resnet", "labels": 1000},
    "cifar_frozen": {"network": "cifar", "frozen": True},
}
SMALL: Fields = {
    "seeds": 2,
    "rates": (1e-3, 1e-2),
    "rate_seeds": 1,
    "hold_out": 64,
    "test_images": 64,
    "batch_size": 16,
    "marks": (1, 2),
    "inits": (KAIMING, NOISE, DELTA, DWP, DWP_ORTHOGONAL, DWP_CENTRED, DWP_LSUV),
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns a stage for each network, then variants of some with few labels or frozen convolutions."""
    chosen: dict[str, Fields] = {}
    for network, settings in COMPARED_NETWORKS.items():
        small = SMALL | {"filters": (4,) * len(settings["filters"])} if smoke else {}
        chosen[network] = {"network": network, "seeds": 5, "rate_seeds": 1, "hold_out": 2000, **settings, **small}
    for name, settings in VARIANTS.items():
        few = {"labels": 20} if smoke and "labels" in settings else {}
        chosen[name] = chosen[settings["network"]] | {"inits": (KAIMING, DWP_ORTHOGONAL), **settings, **few}
    return {
        f"benchmark_{name}": BenchmarkInit(name=f"benchmark_{name}", priors=("natural",), **settings)
        for name, settings in chosen.items()
    }
