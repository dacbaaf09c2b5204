"""Fig. 5: the full-covariance Gaussian of the kernels as the prior, against dwp, log-uniform and N(0, 1), on MNIST.

    python -m training run fig5_gaussian --data-root DATA --workers 2 --record

Expected: «the gaussian prior performs marginally worse than deep weight prior, log-uniform and standard normal»
(Appendix C); the figure's numbers cannot be recovered.
Found: ``training/results/fig5_gaussian.csv``, the picture in ``fig5_gaussian.png``.
Departures: those of ``fig2a_mnist``, from whose runs this is made; the standard deviations along the covariance's
directions are at least a thousandth of the largest.
"""

from training.engine.stage import Stage
from training.experiments.few_labels import MIXTURE
from training.experiments.few_labels_choice import Selection
from training.recipes import fig2a_mnist

FOLDER = fig2a_mnist.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs of Fig. 2(a), reused if they are finished, and this figure's part of them."""
    priors = tuple(prior for prior in fig2a_mnist.BUDGET["priors"] if prior != MIXTURE)
    runs = {"fig2a_mnist": fig2a_mnist.stages(smoke)["fig2a_mnist"]}
    return runs | {"fig5_gaussian": Selection(("fig2a_mnist",), "fig5_gaussian", priors)}
