"""Fig. 4(b): convergence of the paper's ConvNet on MNIST from the bundled priors, their controls and learned kernels.

python -m training run converge_mnist --download
"""

from training.converge import Converge
from training.recipes import _notmnist, prior_notmnist_5x5, prior_notmnist_7x7
from training.stages import Stage

FOLDER = _notmnist.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The learned kernels come from the stages of the two prior recipes, which are reused where they are finished."""
    before = {**prior_notmnist_7x7.stages(smoke), **prior_notmnist_5x5.stages(smoke)}
    needed = ("sources", "kernels_7x7", "kernels_5x5", "gaussian_7x7", "gaussian_5x5")
    converge = Converge(seeds=1, filters=(4, 4), marks=(2, 4)) if smoke else Converge()
    return {name: before[name] for name in needed} | {"converge": converge}
