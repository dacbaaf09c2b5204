"""Six kinds of networks on CIFAR-10 from dwp and from the initialisations that people use, each at its own rate.

    python -m training run benchmark_init --data-root DATA --workers 2 --record

On an accelerator,
``--device cuda --workers 4`` and for each stage, such as ``benchmark_resnet``, ``benchmark_resnet.filters=16,32,64
benchmark_resnet.batch_size=128 benchmark_resnet.precision=bfloat16 benchmark_resnet.test_images=10000
benchmark_resnet.marks=50,100,200,500,1000,2000``. ``benchmark_resnet.labels=1000`` trains on few images, and
``benchmark_resnet.frozen=true`` leaves spatial convolutions as they were drawn.

Expected: the paper has no such table. A public comparison of 200 epochs spans 0.4 to 1.5 points over initialisations of
normalised networks, so that differences are early ones; depthwise kernels and networks without normalisation leave more
room.
Found: not run at full size yet. It leaves for each network ``benchmark_<network>.csv``, each seed in
``benchmark_<network>_runs.csv``, the rates in ``benchmark_<network>_rates.csv`` and the figure in
``benchmark_<network>.png``.
Departures: narrow networks and 200 steps, for a CPU; no shifts or flips. The priors are of notMNIST kernels, 7×7 and
5×5, for there are none of natural images in the bundle yet: networks of 3×3 kernels have no dwp until then, ConvMixer
and ConvNeXt take kernels of dense layers for their depthwise ones, and their patch layers keep PyTorch's default.
Learned kernels are not in the bundle: name kernels stages in ``needs``. The closed-form covariance of Trockman et al.
(2023) is left out, for the formula could not be confirmed from a source.
"""

from typing import Any

from training.benchmark_init import BenchmarkInit
from training.compare_inits import BASELINE
from training.inits import DELTA, FROM_PRIORS, NOISE
from training.stages import Stage

FOLDER = "cifar10"
NETWORKS: dict[str, dict[str, Any]] = {
    "cifar": {"filters": (16, 32, 32), "priors": ("notmnist-7x7", "notmnist-5x5")},
    "vgg": {"filters": (16, 32, 64)},
    "resnet": {"filters": (8, 16, 32)},
    "convmixer": {"filters": (32,), "priors": ("notmnist-7x7",)},
    "convnext": {"filters": (24, 48), "priors": ("notmnist-7x7",)},
    "mobilenet": {"filters": (8, 12, 24)},
}
SMALL: dict[str, Any] = {
    "seeds": 2,
    "rates": (1e-3, 1e-2),
    "rate_seeds": 1,
    "hold_out": 64,
    "test_images": 64,
    "batch_size": 16,
    "marks": (1, 2),
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """A stage for each network."""
    return {f"benchmark_{network}": _stage(network, smoke) for network in NETWORKS}


def _stage(network: str, smoke: bool) -> BenchmarkInit:
    settings = {"name": f"benchmark_{network}", "network": network, **NETWORKS[network]}
    if smoke:
        inits = (BASELINE, NOISE, DELTA) + (FROM_PRIORS if "priors" in settings else ())
        settings |= SMALL | {"inits": inits, "filters": (4,) * len(settings["filters"])}
    return BenchmarkInit(**settings)
