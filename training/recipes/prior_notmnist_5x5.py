"""The priors over 5×5 kernels of networks trained on notMNIST, every family; three are bundled.

    python -m training run prior_notmnist_5x5 --data-root DATA --workers 2 --record
    python -m training bundle prior_notmnist_5x5 && python -m training cards

Expected: Section 3.3 and Appendix H.1 print no density.
Found: ``training/results/density_notmnist_5x5.csv``; bundled are notmnist-5x5, -vae and -h1 as for 7×7.
Departures: as for 7×7 kernels; and the paper's VAE has 24 epochs instead of 300, the flow and the autoregressive
density 10 and the chain 30, and their best state is the last one measured, so that they would gain from more.
"""

from training.engine.stage import Stage
from training.fits.autoregressive import FitAutoregressive
from training.fits.chain import FitChain
from training.fits.flow import FitFlow
from training.fits.mixture import STRENGTHS, FitMixture
from training.fits.vae import FitVAE
from training.recipes import Fields, _notmnist

FOLDER = _notmnist.FOLDER
PRIORS = {"notmnist-5x5": "scale_mixture_5x5", "notmnist-5x5-vae": "vae_5x5", "notmnist-5x5-h1": "h1_5x5"}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns sources, kernels, fits and their comparison."""
    kernels = ("kernels_5x5",)
    mixture = FitMixture(kernels, "notmnist-5x5", components=(16, 24), shrinkages=(30.0,), scales=STRENGTHS, restarts=6)
    latent: Fields = {"importance_samples": 8, "batch_size": 256, "epochs": 2 if smoke else 120}
    short: Fields = {"batch_size": 256, "epochs": 2 if smoke else 10}
    chain: Fields = latent | {"epochs": 2 if smoke else 30}
    trained = {
        "flow_5x5": FitFlow(kernels, "notmnist-5x5-flow", **short),
        "autoregressive_5x5": FitAutoregressive(kernels, "notmnist-5x5-autoregressive", lr=3e-3, **short),
        "chain_5x5": FitChain(kernels, "notmnist-5x5-chain", **chain),
        "vae_5x5": FitVAE(kernels, "notmnist-5x5-vae", **latent),
        "h1_5x5": _notmnist.paper_vae("5x5", latent_dim=4, epochs=2 if smoke else 24),
    }
    return _notmnist.stages("5x5", "features.conv2", mixture, trained, smoke)
