"""Fig. 2(a): classification of MNIST from 50 to 1,000 labels, with learned priors, their rivals and controls.

    python -m training run fig2a_mnist --data-root DATA --workers 2 --record

Expected: the test accuracies of an ensemble of 10 in ``training.experiments.paper.FEW_LABELS["mnist"]``.
Found: ``training/results/fig2a_mnist.csv``, each split in ``fig2a_mnist_runs.csv``, the picture in ``fig2a_mnist.png``;
five of the ten splits at a temperature of 0.1 in ``fig2a_mnist_cold.*``. All take two hours on two cores. Splits 5 to 9
of the first were trained on the CPU of another machine, with torch 2.11, and added to the others. The records are from
before rows had ``steps`` and ``temperature``, and have no ``_spreads.csv``.
Caution: these are no posteriors by Bayes' rule. The log variances have the learning rate of the weights, which in 300
steps moves them by less than 1 from where they start, at -10: the divergence from N(0, 1) stays at 460,000 nats for any
number of labels. Every row is close to a MAP estimate with a little fixed noise. ``fig2a_chosen`` trains the variances.
Departures: the dwp is the bundled dense VAEs with their reverse models trained, as in Algorithm 1 (the authors' code
keeps them fixed). There are fewer steps than the 10,000 that the authors' README gives for 50 labels, at higher
learning rates; ``choose_few_labels`` tried steps for dwp and N(0, 1) alone. The paper does not state how its rivals
were initialised: here all start from draws of dwp, and three also from Xavier's. ``log-uniform-authors`` has the
authors' posterior, σ² = α μ² with α ≤ 1, all others an additive one. N(0, s²) (``normal``), the Gaussian, the scale
mixture and deterministic networks are added.
"""

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.experiments.few_labels import (
    DETERMINISTIC,
    DWP_PRIOR,
    GAUSSIAN_PRIOR,
    LOG_UNIFORM_AUTHORS,
    MIXTURE,
    NORMAL,
    STANDARD_NORMAL,
)
from training.recipes import Fields

FOLDER = "few_labels"
BAYESIAN = (DWP_PRIOR, MIXTURE, GAUSSIAN_PRIOR, LOG_UNIFORM_AUTHORS, STANDARD_NORMAL, NORMAL)
SMALL: Fields = {
    "filters": (4, 4),
    "sizes": (10, 20),
    "splits": 2,
    "steps": 6,
    "batch_size": 10,
    "kernels": 8,
    "samples": 2,
}
BUDGET: Fields = {
    "priors": (*BAYESIAN, DETERMINISTIC),
    "from_xavier": (DWP_PRIOR, STANDARD_NORMAL, DETERMINISTIC),
    "sizes": (50, 100, 200, 500, 1000),
    "splits": 10,
    "steps": 300,
    "batch_size": 32,
    "lr": 3e-3,
    "test_images": 2000,
}
COLD: Fields = {"name": "fig2a_mnist_cold", "temperature": 0.1, "splits": 5, "priors": BAYESIAN, "from_xavier": ()}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns training at a temperature of 1, and of 0.1, better for dwp in ``choose_few_labels``."""
    small = SMALL if smoke else {}
    return {"fig2a_mnist": Classify(**BUDGET | small), "fig2a_mnist_cold": Classify(**BUDGET | COLD | small)}
