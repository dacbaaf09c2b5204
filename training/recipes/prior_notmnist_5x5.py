"""The priors over 5×5 kernels of networks trained on notMNIST: notmnist-5x5 and, with the paper's VAE, notmnist-5x5-h1.

    python -m training run prior_notmnist_5x5 --data-root DATA --workers 2 --record
    python -m training bundle prior_notmnist_5x5 && python -m training cards

Expected: Section 3.3 and Appendix H.1 print no density.
Found: ``training/results/density_notmnist_5x5.csv``.
Departures: as for 7×7 kernels; and the paper's VAE has 24 epochs instead of 300, with its best state at the last
look, so it would gain from more.
"""

from training.fit import Fit
from training.recipes import _notmnist
from training.stages import Stage

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-5x5": "vae_5x5", "notmnist-5x5-h1": "h1_5x5"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Sources, kernels, fits and their comparison."""
    epochs = 2 if smoke else 30
    dense = Fit(("kernels_5x5",), "notmnist-5x5", importance_samples=8, batch_size=256, epochs=epochs)
    return _notmnist.stages("5x5", "features.conv2", dense, latent_dim=4, epochs=24, smoke=smoke)
