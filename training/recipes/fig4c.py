"""Fig. 4(c): steps that the paper's ConvNet needs on CIFAR-10 to reach an accuracy, from ``natural-v1``.

    python -m training run fig4c --data-root DATA --workers 2 --record

On an accelerator, the paper's widths: ``--device cuda --workers 4 fig4c_runs.filters=128,256,256 fig4c_runs.seeds=8
fig4c_runs.test_images=10000``.

Expected: the steps in ``training.experiments.paper.STEPS_TO["fig4c"]``.
Found: ``training/results/fig4c.csv``, each seed in ``fig4c_runs.csv``, the curves in ``fig4c_curves.*`` and
``fig4c.png``: from 30 % on orthogonal draws take a quarter to half of Xavier's steps on average, by the adjusted
p-value at 40 and 45 %; independent draws take as many as Xavier at 40 %, and more from there.
Departures: a quarter of the paper's channels, for a CPU, so that accuracies at a step are not the paper's; the priors
of ``natural-v1``, of Tiny ImageNet's networks instead of CIFAR-100's, the first layer's a joint one of three channels;
accuracy on 1,000 evenly spaced test images, every 8 steps; batches of 256 and a constant learning rate, 1e-3 for all.
``dwp`` has independent draws, as in the paper, ``dwp, orthogonal`` orthogonal ones, as ``natural-v1`` makes them; both
at He's scale. ``apply_(model, "natural")`` is the second edition, which draws otherwise. Controls:
Kaiming and white noise. Learned kernels are not in the bundle.
"""

from training.engine.stage import Stage
from training.experiments.converge import Converge
from training.experiments.steps_to import StepsTo
from training.recipes import Fields
from training.starts.priors import DWP, DWP_ORTHOGONAL

FOLDER = "figures"
BUDGET: Fields = {
    "data": "cifar10",
    "network": "cifar",
    "priors": ("natural-v1",),
    "draws": (DWP, DWP_ORTHOGONAL),
    "filters": (32, 64, 64),
    "marks": tuple(range(8, 393, 8)),
    "batch_size": 256,
    "test_images": 1000,
    "seeds": 4,
}
SMALL: Fields = {"filters": (4, 4, 4), "marks": (2, 4, 6), "batch_size": 16, "test_images": 32, "seeds": 2}
CIFAR_LEVELS = (20.0, 30.0, 40.0, 45.0, 50.0, 55.0, 60.0)


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs, and the steps to each level."""
    levels = (8.0, 10.0, 99.0) if smoke else CIFAR_LEVELS
    title = "CIFAR-10: the paper's network"
    return {
        "fig4c_runs": Converge((), name="fig4c_curves", **BUDGET | (SMALL if smoke else {})),
        "fig4c": StepsTo(("fig4c_runs",), "fig4c", "accuracy", levels, "fig4c", title),
    }
