"""The priors over 7×7 kernels of networks trained on notMNIST: notmnist-7x7 and, with the paper's VAE, notmnist-7x7-h1.

    python -m training run prior_notmnist_7x7 --data-root DATA --workers 2 --record
    python -m training bundle prior_notmnist_7x7 && python -m training cards

Expected: Section 3.3 and Appendix H.1 print no density. On the kernels that the authors released, a full-covariance
Gaussian is a far better density than the paper's VAE of two latent dimensions, and a whitened dense VAE is better
still.
Found: ``training/results/density_notmnist_7x7.csv``, the same order.
Departures: narrower networks on fewer images (see ``_notmnist.sources``), whole networks held out, a variance
floor, the best state on validation networks instead of the last.
"""

from training.fit import Fit
from training.recipes import _notmnist
from training.stages import Stage

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-7x7": "vae_7x7", "notmnist-7x7-h1": "h1_7x7"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Sources, kernels, fits and their comparison."""
    epochs = 5 if smoke else 600
    dense = Fit(("kernels_7x7",), "notmnist-7x7", dropout=0.2, importance_samples=8, lr=3e-3, epochs=epochs)
    return _notmnist.stages("7x7", "features.conv1", dense, latent_dim=2, epochs=300, smoke=smoke)
