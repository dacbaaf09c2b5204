"""Priors of networks trained on natural images: 3×3, 5×5, 7×7 and depthwise kernels by relative depth, colour stems.

    python -m training run prior_tinyimagenet --data-root DATA --workers 2 --record
    python -m training run prior_tinyimagenet --data imagefolder:PATH --workers 2    # of your own images

Expected: peers report that a ConvMixer gains 3 to 4 points from depthwise kernels drawn by depth, and nothing from the
same kernels pooled over depths (Trockman et al. 2023); the paper's CIFAR-100 priors are of 7×7 and 5×5 kernels.
Found: ``model_cards/`` has a card for each prior; ``model_cards/benchmark.md`` says what a network gains from them.
Cost: about an hour on two cores; half of that with ``sources_<kind>.precision=bfloat16`` where the CPU has AMX, many
times that on other CPUs. On an accelerator more and wider networks are better, such as
``sources_cifar.filters=128,256,256,512 sources_cifar.networks=24 sources_cifar.epochs=10
sources_convmixer.filters=128 sources_convmixer.networks=28 sources_convmixer.epochs=15
sources_resnet.filters=32,64,128 sources_resnet.epochs=20 sources_mobilenet.networks=6 sources_mobilenet.epochs=12``.
Departures: the first 100 classes of Tiny ImageNet at 32×32 for CIFAR-100; the paper's source network, narrower, and
three others, all with normalisation layers, with an l2 of 1e-4, where the paper's is 1e-3. Spatial kernels begin at a
tenth of their usual scale, because so short a training would leave them as the noise they began with.
"""

from training.engine.stage import Stage
from training.fits.by_depth import FitByDepth
from training.fits.gaussian import FitGaussian
from training.fits.mixture import STRENGTHS, FitMixture
from training.images.own import short_name
from training.kernels.collect import JointKernels, Kernels
from training.kernels.sources import Sources
from training.recipes import Fields

FOLDER = "tinyimagenet"
DATA = "tinyimagenet32-a"
SOURCES: dict[str, Fields] = {  # what fits two cores
    "convmixer": {"network": "convmixer", "filters": (48,), "networks": 5, "epochs": 2},
    "resnet": {"network": "resnet-7x7-stem", "filters": (16, 32, 64), "networks": 4, "epochs": 2},
    "cifar": {"network": "cifar-source", "filters": (32, 64, 64, 128), "networks": 12, "epochs": 2},
    "mobilenet": {"network": "mobilenet", "filters": (16, 24, 48), "networks": 4, "epochs": 1},
}
PER_NETWORK = {"cifar": 1000, "resnet": 2000}
SMALL = {"cifar": (4, 4, 4, 4), "convmixer": (8,), "resnet": (4, 4, 4), "mobilenet": (4, 4, 4)}
PRIORS = {  # those that are bundled, and the stages that make them
    "tinyimagenet-3x3": "by_depth_3x3",
    "tinyimagenet-5x5": "by_depth_5x5",
    "tinyimagenet-7x7": "mixture_7x7",
    "tinyimagenet-dw3x3": "by_depth_dw3x3",
    "tinyimagenet-dw7x7": "by_depth_dw7x7",
    "tinyimagenet-stem-7x7": "mixture_stem_7x7",
}
SOURCE_LAYERS = {  # by kind of kernel: the source networks, and their layers in order
    "5x5": ("cifar", tuple(f"features.conv{i}" for i in (2, 3, 4))),
    "dw7x7": ("convmixer", tuple(f"body.{i}.depthwise" for i in range(8))),
    "3x3": ("resnet", tuple(f"body.{i}.conv{j}" for i in range(3) for j in (1, 2))),
    "dw3x3": ("mobilenet", tuple(f"body.{i}.layers.3" for i in range(6))),
}


def stages(smoke: bool = False, data: str = DATA) -> dict[str, Stage]:
    """Returns the sources of each kind, each followed by its kernels, which survive an interrupted run; then the fits.

    Args:
        smoke: Whether to shrink everything.
        data: The images; the priors are named after them.
    """
    label = "tinyimagenet" if data == DATA else short_name(data)
    made: dict[str, Stage] = {}
    for kind in SOURCES:
        made[f"sources_{kind}"] = _sources(kind, smoke, data)
        made |= _kernels(kind)
    grid: Fields = {"components": (1, 2, 4, 8), "shrinkages": (10.0, 100.0, 1000.0), "scales": STRENGTHS, "restarts": 2}
    if smoke:
        grid |= {"components": (2,), "shrinkages": (100.0,), "restarts": 1}
    for kind, (_, layers) in SOURCE_LAYERS.items():
        needs = tuple(f"kernels_{kind}_{i}" for i in range(1, len(layers) + 1))
        depths = tuple(i / len(layers) for i in range(1, len(layers) + 1))  # the stem before them has depth 0
        reaches = (0, 1, 2, 4, 8) if kind.startswith("dw") else (0,)  # a depthwise layer has few kernels
        made[f"by_depth_{kind}"] = FitByDepth(needs, f"{label}-{kind}", depths=depths, reaches=reaches, **grid)
    for kind in ("7x7", "stem_7x7"):
        name = f"{label}-{kind.replace('_', '-')}"
        made[f"gaussian_{kind}"] = FitGaussian((f"kernels_{kind}",), f"{name}-gaussian")
        made[f"mixture_{kind}"] = FitMixture((f"kernels_{kind}",), name, **grid)
    return made


def _sources(kind: str, smoke: bool, data: str) -> Sources:
    common: Fields = {"data": data, "batch_size": 64, "lr": 3e-3, "l2": 1e-4, "init_scale": 0.1}
    small = {"networks": 4, "epochs": 1, "filters": SMALL[kind]} if smoke else {}
    return Sources(**common | SOURCES[kind] | small)


def _kernels(source: str) -> dict[str, Stage]:
    common: Fields = {
        "needs": (f"sources_{source}",),
        "validation_networks": 1,
        "test_networks": 1,
        "per_network": PER_NETWORK.get(source),
    }
    made: dict[str, Stage] = {}
    if source == "cifar":
        made["kernels_stem_7x7"] = JointKernels(layer="features.conv1", **common)
        made["kernels_7x7"] = Kernels(layer="features.conv1", **common)
    for kind, (of, layers) in SOURCE_LAYERS.items():
        if of == source:
            made |= {f"kernels_{kind}_{i}": Kernels(layer=layer, **common) for i, layer in enumerate(layers, start=1)}
    return made
