"""Fig. 2(a) with steps and temperature chosen for every prior by held-out images, on all test images.

    python -m training run fig2a_chosen --data-root DATA --workers 2 --from-record --record

Expected: the test accuracies of an ensemble of 10 in ``training.experiments.paper.FEW_LABELS["mnist"]``.
Found: nothing yet. It records the choices in ``choose_bayes.csv`` and ``choose_tempered.csv``, and the figure in
``fig2a_tempered.*``, with a row of dwp by Bayes' rule in ``fig2a_bayes.csv``, and one with scales that start at the
optimum of the bound in ``fig2a_bayes_optimal_scales.csv``, and one with the paper's estimator, local reparametrisation,
in ``fig2a_tempered_local.csv``. Scales and entropies of the posteriors in the course of training are in
``*_spreads.csv``.
Departures: those of ``fig2a_mnist``. Every prior has the same budget of choice: all pairs of steps and temperature with
50, 200 and 1,000 labels, on three splits with seeds of their own, tested on 10,000 training images that are held out.
Training without a prior has no temperature, so it is tried with each number of steps alone. ``fig2a_bayes`` is Bayes'
rule, with steps chosen. ``fig2a_tempered`` weighs the divergences by the temperature chosen, so its objective is no
bound on the evidence unless that is 1. From Xavier's initialisation a prior takes the settings chosen from draws of
dwp. The posterior's scales have a learning rate of their own, and training draws weights (Flipout), whose objective is
that of the networks of the ensemble.
"""

from itertools import product

from training.engine.stage import Stage
from training.experiments.classify import Classify
from training.experiments.few_labels import DETERMINISTIC, DWP_PRIOR
from training.experiments.few_labels_choice import ChooseSettings
from training.recipes import Fields, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
STEPS_TRIED, TEMPERATURES, TRIED_SIZES = (300, 1000), (1.0, 0.1), (50, 200, 1000)
POSTERIOR: Fields = {"scale_lr": 3e-2, "test_images": 10_000, "other_images": 2000, "estimator": "flipout"}
CHOSEN_ON: Fields = {"name": "", "others": "", "splits": 3, "first_split": 100, "hold_out": 10_000, "from_xavier": ()}
BAYES: Fields = {"name": "fig2a_bayes", "priors": (DWP_PRIOR,), "from_xavier": ()}
SMALL: Fields = fig2a_mnist.SMALL | {"sizes": (10,), "priors": (DWP_PRIOR, DETERMINISTIC), "from_xavier": ()}
SMALL_HELD_OUT: Fields = {"splits": 1, "hold_out": 100}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns a stage for each pair of steps and temperature, the choices among them, and the figure by each choice."""
    common: Fields = fig2a_mnist.BUDGET | POSTERIOR | (SMALL if smoke else {})
    held: dict[str, Stage] = {}
    for steps, temperature in product(STEPS_TRIED, TEMPERATURES):
        priors = tuple(prior for prior in common["priors"] if temperature == 1 or prior != DETERMINISTIC)
        own: Fields = {"steps": steps, "temperature": temperature, "priors": priors}
        own |= SMALL_HELD_OUT | Fields(steps=steps // 100) if smoke else Fields(sizes=TRIED_SIZES)
        held[f"held_out_{steps}_{temperature:g}"] = Classify(**common | CHOSEN_ON | own)
    tempered: Fields = {"name": "fig2a_tempered"}
    local: Fields = {"name": "fig2a_tempered_local", "priors": (DWP_PRIOR,), "from_xavier": (), "estimator": "local"}
    wide: Fields = BAYES | {"name": "fig2a_bayes_optimal_scales", "newton_steps": 15}
    return held | {
        "choose_bayes": ChooseSettings(tuple(held), "choose_bayes", (1.0,)),
        "choose_tempered": ChooseSettings(tuple(held), "choose_tempered"),
        "fig2a_bayes": Classify(("choose_bayes",), **common | BAYES),
        "fig2a_bayes_optimal_scales": Classify(("choose_bayes",), **common | wide),
        "fig2a_tempered": Classify(("choose_tempered",), **common | tempered),
        "fig2a_tempered_local": Classify(("choose_tempered",), **common | local),
    }
