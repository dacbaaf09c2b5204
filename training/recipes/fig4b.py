"""Fig. 4(b): steps that the paper's ConvNet needs on MNIST to reach an accuracy, from the bundled priors and controls.

    python -m training run fig4b --data-root DATA --workers 2 --record

Expected: the steps in ``training.experiments.paper.STEPS_TO["fig4b"]``.
Found: ``training/results/fig4b.csv``, each seed in ``fig4b_runs.csv``, the curves in ``fig4b_curves.*`` and
``fig4b.png``: on eight seeds dwp is three times as fast as Xavier and twice as fast as Kaiming to each level that all
reach. ``converge_mnist`` has every family, in batches of 128, at six marks.
Departures: accuracy on 2,000 evenly spaced test images, every 5 steps; constant learning rate. The paper's dwp has the
source's own scale and no noise; here are draws with noise, at He's scale (``dwp``) and at their own. Controls: Kaiming
and white noise. Learned kernels are not in the bundle: name the two kernels stages in ``needs``.
"""

from training.engine.stage import Stage
from training.experiments.converge import Converge
from training.experiments.steps_to import StepsTo
from training.recipes import Fields

FOLDER = "figures"
BUDGET: Fields = {
    "priors": ("notmnist-7x7", "notmnist-5x5"),
    "marks": tuple(range(5, 301, 5)),
    "batch_size": 256,
    "test_images": 2000,
}
SMALL: Fields = {"filters": (4, 4), "marks": (2, 4, 6), "batch_size": 32, "seeds": 2}
MNIST_LEVELS = (92.0, 94.0, 95.0, 96.0, 97.0, 98.0)


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs, and the steps to each level."""
    levels = (8.0, 10.0, 99.0) if smoke else MNIST_LEVELS
    return {
        "fig4b_runs": Converge((), name="fig4b_curves", **BUDGET | (SMALL if smoke else {})),
        "fig4b": StepsTo(("fig4b_runs",), "fig4b", "accuracy", levels, "fig4b"),
    }
