"""The cost of apply_ on the paper's CIFAR network, against kaiming_normal_ on the same weights, and its memory.

python -m training run apply_cost
"""

from training.engine.stage import Stage
from training.experiments.costs import ApplyCost

FOLDER = "benchmarks"


def stages(smoke: bool = False) -> dict[str, Stage]:
    return {"apply_cost": ApplyCost(repeats=1, filters=(4, 8, 8)) if smoke else ApplyCost()}
