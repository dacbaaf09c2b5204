"""The priors over 5×5 kernels of networks trained on notMNIST: notmnist-5x5 and, with the paper's VAE, notmnist-5x5-h1.

python -m training run prior_notmnist_5x5 --download
"""

from training.fit import Fit
from training.recipes import _notmnist
from training.stages import Stage

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-5x5": "vae_5x5", "notmnist-5x5-h1": "h1_5x5"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Sources, kernels, fits and their comparison; the paper's VAE sees raw kernels and has 24 epochs, not 300."""
    needs = ("kernels_5x5",)
    dense = Fit(needs, "notmnist-5x5", importance_samples=8, batch_size=256, epochs=2 if smoke else 30)
    paper = Fit(
        needs,
        "notmnist-5x5-h1",
        network="paper",
        latent_dim=4,
        whiten=False,
        min_scale=1e-3,
        epochs=1 if smoke else 24,
    )
    return _notmnist.stages("5x5", "features.conv2", dense, paper, smoke)
