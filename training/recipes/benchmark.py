"""What a start is worth: networks from many starts on paired seeds, at settings that held-out images choose.

    python -m training run benchmark --data-root DATA --workers 2 --record --from-record

One row, in minutes on two cores: ``--only bench_frozen_3x3``, and as few starts as you like, without ``--record``:
``bench_frozen_3x3.starts=own,Kaiming,natural bench_frozen_3x3.seeds=3``; semicolons separate names with commas, as in
``"bench_frozen_3x3.starts=own;natural-v1, means kept"``. On an accelerator use ``--device cuda``.

A task is a network of a width, data, an amount of labels and a number of steps; each is a stage. Tasks with
``role="choose"`` may choose a default, those with ``role="confirm"`` have other networks and other data and are kept
to confirm it. ``bench_<task>_plateau`` trains the model's own start and ``natural`` five times as long, on 4 seeds, and
``natural`` with dense layers drawn too, or with noise behind its stem, where these are starts of the task.

Expected: the paper has no such table.
Found: ``model_cards/benchmark.md``, from ``bench_<task>.csv``; every run is in ``bench_<task>_runs.jsonl``.
Departures: images of 32×32, stems of stride 2 and few blocks, so that most runs take under a minute of a CPU core.
"""

import dataclasses

from training.engine.stage import Stage
from training.experiments.benchmark import Benchmark
from training.experiments.benchmark_check import BenchmarkCheck
from training.experiments.benchmark_plateau import BenchmarkPlateau
from training.experiments.benchmark_task import BenchmarkTask
from training.recipes import Fields
from training.starts.base import KAIMING
from training.starts.controls import DELTA, DIRAC, FAN_OUT, LSUV, ORTHOGONAL, OTHER_DRAWS, OWN, XAVIER
from training.starts.gaussians import GAUSSIAN_BY_DEPTH
from training.starts.natural import (
    DENSE_DRAWN,
    NATURAL,
    NATURAL_NOISE,
    NATURAL_RESIZED,
    NATURAL_V1,
    NOISE_RESPONSE,
    V1_FAN_IN,
    V1_KEEP,
    V1_MEANS,
    V1_RESIZED,
)
from training.starts.trained import MASTER_FILTERS, TRAINED_NETWORK
from training.starts.whitening import WHITENED, WHITENED_DIRAC, WHITENED_NATURAL
from training.starts.whole import ANYINIT_NORMAL, ANYINIT_SINUSOIDAL, KAIMING_TOO

FOLDER = "benchmark"
SEEN_TINY, LARGER_TINY = "tinyimagenet32-a[0:20]", "tinyimagenet32-a[0:50]"

FIRST = (OWN, OTHER_DRAWS, KAIMING)
CONTROLS = (LSUV, FAN_OUT, XAVIER, ORTHOGONAL, DELTA, DIRAC, ANYINIT_NORMAL, ANYINIT_SINUSOIDAL, WHITENED)
EDITIONS = (NATURAL, NATURAL_V1)
DENSE: tuple[str, ...] = (*FIRST, *EDITIONS, V1_FAN_IN, GAUSSIAN_BY_DEPTH, NOISE_RESPONSE, *CONTROLS)
RESIDUAL = (*DENSE, DENSE_DRAWN)
CHAINS = (*FIRST, *EDITIONS, DENSE_DRAWN, V1_KEEP, *DENSE[6:], WHITENED_DIRAC)  # where the default is fan_in
DEPTHWISE = (*DENSE[:6], V1_MEANS, MASTER_FILTERS, *DENSE[6:])  # there are master filters for depthwise layers
SEVEN = (*DEPTHWISE, NATURAL_NOISE)  # depthwise layers of a size that natural draws
FIVE = (*DENSE[:6], V1_RESIZED, MASTER_FILTERS, *DENSE[6:])  # 5×5 depthwise layers behind a stem that one fits
FIVE_ONLY = (*FIRST, NATURAL, V1_RESIZED, MASTER_FILTERS, *CONTROLS)  # behind a stem that no prior of natural-v1 fits
NINE = (*FIVE_ONLY, NATURAL_RESIZED)  # a size that no depthwise prior has
RIVALS = (DIRAC, WHITENED_DIRAC)  # of networks without residual connections
DENSE_AGAIN = (OWN, KAIMING, NATURAL, WHITENED, *RIVALS)  # those that lead, and what they are compared with
NORMALISED_AGAIN = (*DENSE_AGAIN, DENSE_DRAWN)
DEPTHWISE_AGAIN = (OWN, KAIMING, NATURAL, WHITENED, MASTER_FILTERS)
SEVEN_AGAIN = (*DEPTHWISE_AGAIN, NATURAL_NOISE)
CHAINS_AGAIN = (OWN, KAIMING, NATURAL, DENSE_DRAWN, LSUV, *RIVALS)
POINTWISE_AGAIN = (OWN, KAIMING, KAIMING_TOO, NATURAL, LSUV, *RIVALS)  # where natural rescales 1×1 layers too
SIX: tuple[str, ...] = (OWN, KAIMING, LSUV, *EDITIONS, GAUSSIAN_BY_DEPTH)
SIX_DEPTHWISE = (OWN, KAIMING, MASTER_FILTERS, *EDITIONS, GAUSSIAN_BY_DEPTH)

BFLOAT16: Fields = {"precision": "bfloat16"}  # for the networks that a CPU trains faster with it
FEW_IMAGES: Fields = {"each": 50, "steps": 400, "hold_out": 4000, "starts": DENSE}
FEW_TINY: Fields = {**FEW_IMAGES, "data": SEEN_TINY, "steps": 600, "hold_out": 3000, "more_test": 4000}
FEW_FASHION: Fields = {**FEW_IMAGES, "data": "fashionmnist"}
FEW_NOTMNIST: Fields = {**FEW_IMAGES, "data": "notmnist", "hold_out": 2000}
FULL: Fields = {"steps": 1000, "starts": SIX}
LARGER_BATCHES: Fields = {**FULL, "batch_size": 64}  # for networks that a CPU trains in a minute even so
FULL_CHAIN: Fields = {**LARGER_BATCHES, "starts": (*SIX, *RIVALS, DENSE_DRAWN)}
FULL_DEPTHWISE: Fields = {**FULL, "starts": SIX_DEPTHWISE}
FULL_SEVEN: Fields = {**FULL, "starts": (*SIX_DEPTHWISE, NATURAL_NOISE)}
FULL_FIVE: Fields = {**FULL, "starts": (OWN, KAIMING, MASTER_FILTERS, NATURAL, V1_RESIZED, GAUSSIAN_BY_DEPTH)}
FULL_TINY: Fields = {**FULL, "data": LARGER_TINY, "hold_out": 2500, "more_test": 2500}
FULL_CIFAR100: Fields = {**FULL, "data": "cifar100"}  # --download fetches it
FULL_NOTMNIST: Fields = {**FULL, "data": "notmnist", "hold_out": 2000, "more_test": 1000}
FROZEN: Fields = {"steps": 500, "frozen": True}
FROZEN_NOTMNIST: Fields = {**FROZEN, "data": "notmnist", "hold_out": 2000}
TARGET: Fields = {
    **LARGER_BATCHES,
    "marks": 20,
    "starts": (OWN, KAIMING, NATURAL, DENSE_DRAWN, DIRAC, WHITENED, WHITENED_DIRAC, WHITENED_NATURAL),
}

RESNET: Fields = {"network": "resnet(stride=2, blocks=1)", **BFLOAT16}
RESNET_20: Fields = {"network": "resnet(stride=2, blocks=3)", "filters": (16, 32, 64), **BFLOAT16}
MOBILENET: Fields = {"network": "mobilenet(stride=2, blocks=1)"}
MOBILENET_5: Fields = {"network": "mobilenet(stride=2, blocks=1, kernel=5)"}
NARROWER_MOBILENET: Fields = {"network": "mobilenet(stride=2, blocks=1, expansion=3)"}
NARROWER_MOBILENET_5: Fields = {"network": "mobilenet(stride=2, blocks=1, expansion=2, kernel=5)"}
MIXER = "convmixer(blocks=6, patch=4"
CONVMIXER: Fields = {"network": f"{MIXER})"}
CONVNEXT: Fields = {"network": "convnext(blocks=1)"}
DEEPER_CONVNEXT: Fields = {"network": "convnext(patch=4)"}
PLAIN_VGG: Fields = {"network": "vgg(stride=2)", **BFLOAT16}
NORMALISED_VGG: Fields = {"network": "vgg(stride=2, norm=1)", **BFLOAT16}
PAPER_NET: Fields = {"network": "cifar", **BFLOAT16}
SPEED: Fields = {"network": "speed", **BFLOAT16}
RESNET_18: Fields = {"network": "timm:resnet18(channels=(32, 64, 128, 256))", "filters": (), **BFLOAT16}
LCNET: Fields = {"network": "timm:lcnet_050", "filters": (), "starts": DEPTHWISE_AGAIN}  # 3×3 and 5×5
STARNET: Fields = {**LCNET, "network": "timm:starnet_s050(depths=(1, 1, 1, 1))", "starts": SEVEN_AGAIN}  # 7×7
DENSENET: Fields = {
    "network": "timm:densenet121(growth_rate=16, block_config=(3, 3, 3))",
    **BFLOAT16,
    "filters": (),
    "starts": DENSE_AGAIN,
}
NIN: Fields = {"network": "nin(stride=2)", **BFLOAT16, "starts": POINTWISE_AGAIN}
ALL_CNN: Fields = {"network": "allcnn(norm=1)", **BFLOAT16, "filters": (32, 64), "starts": NORMALISED_AGAIN}
TUTORIAL: Fields = {"network": "tutorial", "starts": CHAINS_AGAIN}
PLAIN_CHAIN: Fields = {"network": "allcnn", **BFLOAT16, "filters": (32, 64), "starts": POINTWISE_AGAIN}

CHOOSING: dict[str, Fields] = {  # in the order of a run without --only; those on record came in another
    "few_cifar10_mobilenet": {**FEW_IMAGES, **MOBILENET, "starts": DEPTHWISE, "filters": (32, 48, 64)},
    "few_cifar10_convmixer": {**FEW_IMAGES, **CONVMIXER, "starts": SEVEN, "filters": (64,)},
    "few_cifar10_vgg": {**FEW_IMAGES, **PLAIN_VGG, "starts": CHAINS, "filters": (32, 64, 128)},
    "few_tiny_mobilenet5": {**FEW_TINY, **MOBILENET_5, "starts": FIVE, "filters": (32, 48, 64)},
    "few_tiny_resnet": {**FEW_TINY, **RESNET, "starts": RESIDUAL, "filters": (32, 64, 128)},
    "few_fashion_convmixer": {**FEW_FASHION, **CONVMIXER, "starts": SEVEN, "filters": (48,)},
    "few_fashion_resnet": {**FEW_FASHION, **RESNET, "starts": RESIDUAL, "filters": (48, 64, 96)},
    "few_tiny_mobilenet": {**FEW_TINY, **MOBILENET, "starts": DEPTHWISE, "filters": (48, 64, 96)},
    "few_cifar10_nin": {**FEW_IMAGES, **NIN, "filters": (48, 64, 96)},
    "few_cifar10_speed": {**FEW_IMAGES, **SPEED, "starts": NORMALISED_AGAIN, "filters": (32, 64, 64)},
    "few_tiny_normalised": {**FEW_TINY, **NORMALISED_VGG, "starts": NORMALISED_AGAIN, "filters": (32, 64, 128)},
    "few_fashion_normalised": {**FEW_FASHION, **NORMALISED_VGG, "starts": NORMALISED_AGAIN, "filters": (48, 64, 96)},
    "few_fashion_nin": {**FEW_FASHION, **NIN, "filters": (64, 64, 96)},
    "few_fashion_speed": {**FEW_FASHION, **SPEED, "starts": NORMALISED_AGAIN, "filters": (48, 64, 64)},
    "few_cifar10_tutorial": {**FEW_IMAGES, **TUTORIAL, "filters": (6, 16)},
    "few_fashion_tutorial": {**FEW_FASHION, **TUTORIAL, "filters": (16, 32)},
    "frozen_7x7": {**FROZEN, **CONVMIXER, "filters": (64,), "starts": SEVEN},
    "frozen_3x3": {**FROZEN, "network": f"{MIXER}, kernel=3)", "filters": (64,), "starts": DEPTHWISE},
    "frozen_5x5": {**FROZEN, "network": f"{MIXER}, kernel=5)", "filters": (64,), "starts": FIVE_ONLY},
    "frozen_9x9": {**FROZEN, "network": f"{MIXER}, kernel=9)", "filters": (64,), "starts": NINE},
    "full_mobilenet": {**FULL_DEPTHWISE, **NARROWER_MOBILENET, "filters": (32, 48, 64)},
    "full_vgg": {**FULL_CHAIN, **PLAIN_VGG, "filters": (64, 64, 128)},
    "full_convmixer": {**FULL_SEVEN, **CONVMIXER, "filters": (64,)},
    "full_resnet20": {**FULL, **RESNET_20, "starts": (*SIX, DENSE_DRAWN, WHITENED, TRAINED_NETWORK)},
    "full_convnext": {**FULL_SEVEN, **CONVNEXT, "filters": (32, 64)},
    "full_paper": {**LARGER_BATCHES, **PAPER_NET, "starts": (*SIX, DENSE_DRAWN), "filters": (32, 64, 64)},
    "full_mobilenet5": {**FULL_FIVE, **NARROWER_MOBILENET_5, "filters": (32, 48, 64)},
    "full_tiny_resnet18": {**FULL_TINY, **RESNET_18},
    "target_speed": {**TARGET, **SPEED, "filters": (32, 64, 64)},
    "full_convnext_wide": {**FULL_SEVEN, **DEEPER_CONVNEXT, "filters": (48, 96)},
    "full_paper_wide": {**FULL_CHAIN, **PAPER_NET, "filters": (64, 64, 128)},
}

CONFIRMING: dict[str, Fields] = {  # other networks and other data than those above
    "confirm_few_notmnist_starnet": {**FEW_NOTMNIST, **STARNET},
    "confirm_few_notmnist_lcnet": {**FEW_NOTMNIST, **LCNET},
    "confirm_few_notmnist_densenet": {**FEW_NOTMNIST, **DENSENET},
    "confirm_few_notmnist_allcnn": {**FEW_NOTMNIST, **ALL_CNN},
    "confirm_few_notmnist_plain": {**FEW_NOTMNIST, **PLAIN_CHAIN},
    "confirm_frozen_notmnist_starnet": {**FROZEN_NOTMNIST, **STARNET},
    "confirm_full_notmnist_starnet": {**FULL_NOTMNIST, **STARNET},
    "confirm_full_notmnist_densenet": {**FULL_NOTMNIST, **DENSENET},
    "confirm_full_notmnist_allcnn": {**FULL_NOTMNIST, **ALL_CNN},
    "confirm_full_notmnist_plain": {**FULL_NOTMNIST, **PLAIN_CHAIN},
    "confirm_full_cifar100_lcnet": {**FULL_CIFAR100, **LCNET},
    "confirm_full_cifar100_densenet": {**FULL_CIFAR100, **DENSENET},
}
SMALL: Fields = {
    "seeds": 2,
    "trials": 2,
    "hold_out": 50,
    "more_test": 0,
    "batch_size": 8,
    "steps": 2,
    "marks": 2,
    "curve_images": 20,
}
CHECK: Fields = {**FEW_IMAGES, **RESNET, "filters": (32, 64, 128), "seeds": 14}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the check of the instrument, a stage for each task, and longer runs of those with all labels."""
    check = {key: value for key, value in CHECK.items() if key != "starts"}
    tasks = CHOOSING | {name: {**fields, "role": "confirm"} for name, fields in CONFIRMING.items()}
    if smoke:
        check |= {**_small(check), "seeds": 9}
        tasks = {name: fields | _small(fields) | _few_starts(fields) for name, fields in tasks.items()}
    made: dict[str, Stage] = {"bench_check": BenchmarkCheck(name="bench_check", **check)}
    benches = {f"bench_{name}": Benchmark(name=f"bench_{name}", **fields) for name, fields in tasks.items()}
    full = {name: task for name, task in benches.items() if name.startswith("bench_full_")}
    return made | benches | {f"{name}_plateau": longer(task, times=5) for name, task in full.items()}


def longer(task: Benchmark, times: int) -> BenchmarkPlateau:
    """Returns the stage that trains the network of a task for several times its steps, on fewer seeds."""
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(BenchmarkTask)}
    starts = tuple(start for start in (OWN, NATURAL, DENSE_DRAWN, NATURAL_NOISE) if start in task.starts)
    changed = {"name": f"{fields['name']}_plateau", "of": fields["name"], "steps": times * fields["steps"]}
    return BenchmarkPlateau(**{**fields, **changed, "starts": starts, "seeds": min(4, fields["seeds"])})


def _small(fields: Fields) -> Fields:
    few: Fields = {"each": 2} if "each" in fields else {}
    return {**SMALL, **few, "filters": (4,) * len(fields["filters"])}


def _few_starts(fields: Fields) -> Fields:
    chosen = (OWN, KAIMING, NATURAL)
    return {"starts": tuple(start for start in fields["starts"] if start in chosen)}
