"""Fig. 5: the full-covariance Gaussian of the kernels as the prior, beside dwp, log-uniform and N(0, 1), on MNIST.

    python -m training run fig5_gaussian --data-root DATA --workers 2 --record

Expected: «the gaussian prior performs marginally worse than deep weight prior, log-uniform and standard normal»
(Appendix C); the figure's numbers are not recoverable.
Found: ``training/results/fig5_gaussian.csv``, the picture in ``fig5_gaussian.png``.
Departures: those of ``fig2a_mnist``, whose runs these are; the covariance's directions have a floor of a thousandth of
the largest standard deviation.
"""

from training.classify import AUTHORS_LOG_UNIFORM, DWP, GAUSSIAN, STANDARD, Selection
from training.recipes import fig2a_mnist
from training.stages import Stage

FOLDER = fig2a_mnist.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The runs of Fig. 2(a), reused where they are finished, and the four priors of this figure."""
    priors = (DWP, AUTHORS_LOG_UNIFORM, STANDARD, GAUSSIAN)
    return fig2a_mnist.stages(smoke) | {"fig5_gaussian": Selection(("fig2a_mnist",), "fig5_gaussian", priors)}
