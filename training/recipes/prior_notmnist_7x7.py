"""The priors over 7×7 kernels of networks trained on notMNIST: notmnist-7x7 and, with the paper's VAE, notmnist-7x7-h1.

python -m training run prior_notmnist_7x7 --download
"""

from training.fit import Fit
from training.recipes import _notmnist
from training.stages import Stage

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-7x7": "vae_7x7", "notmnist-7x7-h1": "h1_7x7"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Sources, kernels, fits and their comparison; the paper's VAE sees raw kernels, as in Appendix H.1."""
    needs = ("kernels_7x7",)
    dense = Fit(needs, "notmnist-7x7", dropout=0.2, importance_samples=8, lr=3e-3, epochs=5 if smoke else 600)
    paper = Fit(
        needs,
        "notmnist-7x7-h1",
        network="paper",
        latent_dim=2,
        whiten=False,
        min_scale=1e-3,
        epochs=2 if smoke else 300,
    )
    return _notmnist.stages("7x7", "features.conv1", dense, paper, smoke)
