"""Few labels with augmentation, for every prior: affine maps on MNIST, crops and flips on CIFAR-10.

    python -m training run few_labels_augmented --data-root DATA --workers 2 --from-record --record

``--only`` with the stages of one data set runs that alone.

Expected: the paper has no augmentation.
Found: nothing yet. It records ``few_labels_mnist_augmented.*`` and ``few_labels_cifar10_augmented.*``, with accuracy,
log loss, calibration and, on MNIST, the detection of unknown images, as ``fig2a_mnist`` does, and the choices of the
temperature in ``choose_mnist_augmented.csv`` and ``choose_cifar10_augmented.csv``.
Departures: those of ``fig2a_chosen`` and ``fig2b_cifar10``. An image counts once: a step has one random copy of each,
so that the data part of the objective is the mean of log p(y | copy), a lower bound on the log of the mean over all
copies; ``copies=4`` tightens it. It is no power of the likelihood, see :class:`training.images.augment.Augment`.
Predictions are for the images as they are. The number of steps is fixed, as the copies of one step do not come again.
The temperature is chosen for each prior and number of labels by training images that are held out.
"""

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.experiments.few_labels import DETERMINISTIC
from training.experiments.few_labels_choice import ChooseSettings
from training.recipes import Fields, fig2a_chosen, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
AUGMENTED_STEPS = 900
DATA_SETS: dict[str, Fields] = {
    "mnist": {"augmentation": "affine"},
    "cifar10": {"augmentation": "crop and flip", "data": "cifar10", "others": "", "filters": (32, 64, 64)},
}
SMALL_FILTERS: dict[str, Fields] = {"mnist": {"filters": (4, 4)}, "cifar10": {"filters": (2, 2, 2)}}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns for each data set the temperatures that are tried, the choice among them, and the comparison."""
    common: Fields = fig2a_mnist.BUDGET | fig2a_chosen.POSTERIOR | {"steps": AUGMENTED_STEPS}
    found: dict[str, Stage] = {}
    for data, own in DATA_SETS.items():
        settings = common | own | (fig2a_chosen.SMALL | SMALL_FILTERS[data] if smoke else {})
        held: dict[str, Stage] = {}
        for temperature in fig2a_chosen.TEMPERATURES:
            priors = tuple(prior for prior in settings["priors"] if temperature == 1 or prior != DETERMINISTIC)
            tried: Fields = {"temperature": temperature, "priors": priors}
            tried |= fig2a_chosen.SMALL_HELD_OUT if smoke else Fields(sizes=fig2a_chosen.TRIED_SIZES)
            held[f"{data}_held_out_{temperature:g}"] = Classify(**settings | fig2a_chosen.CHOSEN_ON | tried)
        choice = f"{data}_choose"
        found |= held | {choice: ChooseSettings(tuple(held), f"choose_{data}_augmented")}
        named: Fields = {"name": f"few_labels_{data}_augmented"}
        found[f"{data}_augmented"] = Classify((choice,), **settings | named)
    return found
