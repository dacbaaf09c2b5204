"""The cost of apply_ on the paper's CIFAR network, against kaiming_normal_ on the same weights, and its memory.

    python -m training run apply_cost --record

Expected: no figure; the paper does not state what drawing kernels costs.
Found: ``training/results/apply_cost.csv``; run it on an idle machine.
"""

from training.engine.stage import Stage
from training.experiments.costs import ApplyCost

FOLDER = "benchmarks"


def stages(smoke: bool = False) -> dict[str, Stage]:
    return {"apply_cost": ApplyCost(repeats=1, filters=(4, 8, 8)) if smoke else ApplyCost()}
