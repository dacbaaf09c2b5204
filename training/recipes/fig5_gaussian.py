"""Fig. 5: the full-covariance Gaussian of the kernels as the prior, beside dwp, log-uniform and N(0, 1), on MNIST.

    python -m training run fig5_gaussian --data-root DATA --workers 2 --record

Expected: «the gaussian prior performs marginally worse than deep weight prior, log-uniform and standard normal»
(Appendix C); the figure's numbers are not recoverable.
Found: ``training/results/fig5_gaussian.csv``, the picture in ``fig5_gaussian.png``.
Departures: those of ``fig2a_mnist``, whose runs these are; the covariance's directions have a floor of a thousandth of
the largest standard deviation.
"""

from training.engine.stage import Stage
from training.experiments.classify import Selection
from training.experiments.few_labels import DWP, GAUSSIAN, LOG_UNIFORM_AUTHORS, NONE, NORMAL, STANDARD
from training.recipes import fig2a_mnist

FOLDER = fig2a_mnist.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The runs of Fig. 2(a), reused where they are finished, and this figure's part of them."""
    priors = (DWP, GAUSSIAN, LOG_UNIFORM_AUTHORS, STANDARD, NORMAL, NONE)
    runs = {"fig2a_mnist": fig2a_mnist.stages(smoke)["fig2a_mnist"]}
    return runs | {"fig5_gaussian": Selection(("fig2a_mnist",), "fig5_gaussian", priors)}
