"""The cost of a step of variational inference with a learned prior, against the standard normal prior.

    python -m training run inference_step --record

Expected: at most 2.5 times with the dense VAEs on a CPU, and memory that is bounded by the number
of kernels that a step looks at.
Found: ``training/results/inference_step.csv``, and ``inference_step_semi_implicit.csv`` with the semi-implicit bound
for several numbers of draws K. The latter was measured on a busy machine: medians of alternating pairs, far apart from
their minima and maxima. Run it on an idle one.
"""

from training.engine.stage import Stage
from training.experiments.costs import InferenceStep
from training.recipes import Fields

FOLDER = "benchmarks"
VAES = ("notmnist-7x7-vae", "notmnist-5x5-vae")


def stages(smoke: bool = False) -> dict[str, Stage]:
    small: Fields = {"filters": (4, 4), "kernels": (0, 8), "repeats": 2} if smoke else {}
    own: Fields = {"name": "inference_step_semi_implicit", "pairs": (VAES,), "draws": (1, 2, 5, 10, 20)}
    return {
        "inference_step": InferenceStep(**small),
        "inference_step_semi_implicit": InferenceStep(**own | small),
    }
