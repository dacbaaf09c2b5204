"""The priors over 7×7 kernels of networks trained on notMNIST, every family; three are bundled.

    python -m training run prior_notmnist_7x7 --data-root DATA --workers 2 --record
    python -m training bundle prior_notmnist_7x7 && python -m training cards

Expected: Section 3.3 and Appendix H.1 print no density. On the kernels that the authors released, a full-covariance
Gaussian is a far better density than the paper's VAE of two latent dimensions, and a whitened dense VAE is better
still.
Found: ``training/results/density_notmnist_7x7.csv``: the same order, with an average of Gaussian scale mixtures first.
That average is bundled as notmnist-7x7, the dense VAE as -vae and the paper's as -h1.
Departures: narrower networks on fewer images (see ``_notmnist.sources``), all kernels of some networks held out, a
variance floor, the best state on validation networks instead of the last.
"""

from training.engine.stage import Stage
from training.fits.autoregressive import FitAutoregressive
from training.fits.chain import FitChain
from training.fits.flow import FitFlow
from training.fits.mixture import STRENGTHS, FitMixture
from training.fits.vae import FitVAE
from training.recipes import Fields, _notmnist

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-7x7": "scale_mixture_7x7", "notmnist-7x7-vae": "vae_7x7", "notmnist-7x7-h1": "h1_7x7"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns sources, kernels, fits and their comparison."""
    kernels = ("kernels_7x7",)
    mixture = FitMixture(
        kernels, "notmnist-7x7", components=(6, 8, 10), shrinkages=(3.0, 10.0, 30.0), scales=STRENGTHS, restarts=24
    )
    latent: Fields = {"dropout": 0.2, "importance_samples": 8, "lr": 3e-3, "epochs": 5 if smoke else 600}
    short: Fields = {"lr": 3e-3, "dropout": 0.4, "epochs": 2 if smoke else 60}
    trained = {
        "flow_7x7": FitFlow(kernels, "notmnist-7x7-flow", jitter=0.1, epochs=2 if smoke else 300),
        "autoregressive_7x7": FitAutoregressive(kernels, "notmnist-7x7-autoregressive", **short),
        "chain_7x7": FitChain(kernels, "notmnist-7x7-chain", **latent),
        "vae_7x7": FitVAE(kernels, "notmnist-7x7-vae", **latent),
        "h1_7x7": _notmnist.paper_vae("7x7", latent_dim=2, epochs=1 if smoke else 300),
    }
    return _notmnist.stages("7x7", "features.conv1", mixture, trained, smoke)
