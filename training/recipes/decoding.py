"""The cost of drawing 98,304 5×5 kernels from each family, against kaiming_normal_ and the matrix-product peak.

    python -m training run decoding --data-root DATA --record

Expected: at most 10 times kaiming_normal_ for the bundled family. For the paper's decoder, which consists of matrix
products, 60 % of the peak.
Found: ``training/results/decoding.csv``; run it on an idle machine.
"""

from training.engine.stage import Stage
from training.experiments.costs import Decoding
from training.recipes import _notmnist, prior_notmnist_5x5

FOLDER = _notmnist.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The fits come from the stages of the prior recipe, which are reused where they are finished."""
    before = prior_notmnist_5x5.stages(smoke)
    fits = [name for name in before if name not in ("sources", "kernels_5x5", "density_5x5")]
    small = {"kernels": 500, "repeats": 1, "size": 64} if smoke else {}
    return {name: before[name] for name in ("sources", "kernels_5x5", *fits)} | {
        "decoding": Decoding((*fits,), **small)
    }
