"""How to train from few labels: steps and temperature of fig2a_mnist, on training images held out.

    python -m training run choose_few_labels --data-root DATA --workers 2 --record

Expected: no figure; the paper trains with the divergence at its full weight from the start.
Found: ``training/results/choose_few_labels.csv``, the mean of three splits of 100 and of 1,000 labels, from seeds of
their own.
Departures: 2,000 evenly spaced ones of the last 10,000 training images replace the test images. Steps and temperature
are tried for dwp and N(0, 1) alone; ``fig2a_mnist`` uses them for all seven.
"""

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.experiments.few_labels import DWP_PRIOR, STANDARD_NORMAL
from training.experiments.few_labels_choice import Selection
from training.recipes import Fields, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
TRIED: Fields = {"plain": {"steps": 300}, "longer": {"steps": 800}, "cold": {"steps": 300, "temperature": 0.1}}
ON_HELD_OUT: Fields = {"name": "", "others": "", "splits": 3, "first_split": 100, "hold_out": 10_000, "from_xavier": ()}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns a stage for each way of training, and the table of all."""
    priors = (DWP_PRIOR, STANDARD_NORMAL)
    small = fig2a_mnist.SMALL | {"hold_out": 100} if smoke else {}
    common = fig2a_mnist.BUDGET | ON_HELD_OUT | {"priors": priors, "sizes": (100, 1000)}
    tried: dict[str, Stage] = {f"choose_{name}": Classify(**common | own | small) for name, own in TRIED.items()}
    return tried | {"choose_few_labels": Selection(tuple(tried), "choose_few_labels", priors)}
