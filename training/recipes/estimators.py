"""Flipout against local reparametrisation: Bayesian networks with global pooling, priors by layer and depth.

    python -m training run estimators --data-root DATA --workers 2 --from-record --record

Expected: the paper has no such table; it trains with local reparametrisation.
Found: ``training/results/estimators_resnet.csv``; ``estimators_mobilenet.csv`` is not run yet. With ``--only`` and the
stages of one network that is run alone, in an hour and a half of a core.
Departures: networks that the paper does not have, with ``natural`` as prior by depth, and with a normal prior of
independent weights at the scale of each layer. All start from draws of ``natural``, those of dense layers too. Networks
without a prior are beside. Everything is fixed in advance but the temperature, of which Bayes' rule and one more are
shown. The test images are evaluated once.
"""

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.experiments.estimators import CompareEstimators
from training.experiments.few_labels import DETERMINISTIC, FROM_NATURAL, NATURAL_PRIOR, NORMAL_BY_LAYER
from training.recipes import Fields, fig2a_chosen, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
POOLED_SETTINGS: Fields = {
    "name": "",
    "others": "",
    "vaes": (),
    "mixtures": (),
    "start": FROM_NATURAL,
    "from_xavier": (),
    "sizes": (500,),
    "splits": 8,
    "steps": 400,
    "batch_size": 32,
    "lr": 3e-3,
    "scale_lr": 3e-2,
}
POOLED: dict[str, Fields] = {
    "resnet": {"network": "resnet(stride=2, blocks=1)", "data": "fashionmnist", "filters": (32, 64, 96)},
    "mobilenet": {"network": "mobilenet(stride=2, blocks=1)", "data": "cifar10", "filters": (32, 48, 64)},
}
SMALL: Fields = {
    "filters": (2, 2, 2),
    "sizes": (10,),
    "splits": 2,
    "steps": 4,
    "batch_size": 10,
    "kernels": 8,
    "samples": 2,
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns training with each estimator at each temperature, and the comparison."""
    found: dict[str, Stage] = {}
    for name, network in POOLED.items():
        compared: list[str] = []
        for temperature in fig2a_chosen.TEMPERATURES:
            for estimator in ("flipout", "local"):
                once = (DETERMINISTIC,) if (temperature, estimator) == (1, "flipout") else ()
                own: Fields = {"temperature": temperature, "estimator": estimator}
                own["priors"] = (NATURAL_PRIOR, NORMAL_BY_LAYER, *once)
                settings = POOLED_SETTINGS | network | own | (SMALL if smoke else {})
                compared.append(f"estimator_{name}_{estimator}_{temperature:g}")
                found[compared[-1]] = Classify(**settings)
        found[f"estimators_{name}"] = CompareEstimators(tuple(compared), f"estimators_{name}")
    return found
