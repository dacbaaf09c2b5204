"""The cost of apply_ against kaiming_normal_ on the same weights, its memory, and its first call.

    python -m training run apply_cost --record

Two stages: the paper's CIFAR network with each of its pairs of priors, and ``natural`` on public networks and on single
layers of growing size. The second needs torchvision and timm, whose networks it builds with random weights.

Expected: no figure; the paper does not state what drawing kernels costs.
Found: ``apply_cost.csv``, ``apply_cost_natural.csv`` and ``.png``, and ``apply_cost_first_call.csv``, in
``training/results``; run it on an idle machine.
"""

from training.engine.stage import Stage
from training.experiments.costs import ApplyCost
from training.experiments.natural_costs import NaturalCosts

FOLDER = "benchmarks"


def stages(smoke: bool = False) -> dict[str, Stage]:
    if smoke:
        natural = NaturalCosts(models=("squeezenet1_1",), channels=(8, 16), repeats=1, starts=1)
        return {"apply_cost": ApplyCost(repeats=1, filters=(4, 8, 8)), "natural_costs": natural}
    return {"apply_cost": ApplyCost(), "natural_costs": NaturalCosts()}
