"""Fig. 2(b): classification of CIFAR-10 from 50 to 500 labels, learned priors, rivals and controls.

    python -m training run fig2b_cifar10 --data-root DATA --workers 2 --from-record --record

Expected: the test accuracies in ``training.experiments.paper.FEW_LABELS["cifar10"]``.
Found: not run at full size yet. It leaves ``fig2b_cifar10.csv``, each split in ``fig2b_cifar10_runs.csv``, the picture
in ``fig2b_cifar10.png``.
Departures: the priors are of notMNIST kernels, one channel each, while the paper's are of CIFAR-100 networks, which
are not made here yet; a quarter of the paper's filters (128, 256, 256), for a CPU; stratified splits, each with its own
images (the authors' code gives every seed the same, unstratified); otherwise as ``fig2a_mnist``.
"""

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.recipes import Fields, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
SMALL: Fields = fig2a_mnist.SMALL | {"filters": (2, 2, 2)}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns one stage; ``fig2b_cifar10.filters=128,256,256`` is the paper's network."""
    own: Fields = {
        "name": "fig2b_cifar10",
        "data": "cifar10",
        "others": "",
        "filters": (32, 64, 64),
        "sizes": (50, 200, 500),
    }
    return {"fig2b_cifar10": Classify(**fig2a_mnist.BUDGET | own | (SMALL if smoke else {}))}
