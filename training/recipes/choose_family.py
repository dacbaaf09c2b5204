"""How fast families of prior train: the convergence of converge_mnist on training images held out, from other seeds.

    python -m training run choose_family --data-root DATA --workers 2 --record

Expected: the paper compares its VAE with learned kernels only (Section 4.3), which train faster.
Found: ``training/results/choose_family.csv``, each seed in ``choose_family_runs.csv``; the density of each family is in
``density_notmnist_7x7.csv`` and ``density_notmnist_5x5.csv``.
Departures: the last 10,000 training images replace the test images. The family that is bundled was chosen by its
density on the kernels of the test networks; on these images it is not told from the dense VAE.
"""

from typing import Any

from training.engine.stage import Stage
from training.experiments.converge import Converge
from training.recipes import _notmnist, prior_notmnist_5x5, prior_notmnist_7x7

FOLDER = _notmnist.FOLDER
STAGES = {  # stages of the fits, without the kernel size, by the name of the family in the tables
    "Gaussian prior": "gaussian",
    "mixture": "mixture",
    "scale mixture": "scale_mixture",
    "kernel density": "kde",
    "flow": "flow",
    "autoregressive": "autoregressive",
    "Markov chain": "chain",
    "dense VAE": "vae",
    "dense VAE, decoder mean": "vae",
    "paper's VAE": "h1",
}


def stages(smoke: bool = False) -> dict[str, Stage]:
    return converge(smoke, STAGES, "choose_family", first_seed=100, hold_out=10_000, marks=(25, 120))


def converge(smoke: bool, families: dict[str, str], name: str, **settings: Any) -> dict[str, Stage]:
    """Returns the stages of the priors in ``families``, by their names in the table, and the training from each."""
    before = {**prior_notmnist_7x7.stages(smoke), **prior_notmnist_5x5.stages(smoke)}
    kernels = ("kernels_7x7", "kernels_5x5")
    fits = [f"{family}_{size}" for family in families.values() for size in ("7x7", "5x5")]
    small = {"seeds": 1, "filters": (4, 4), "marks": (2, 4)} if smoke else {}
    if smoke and "hold_out" in settings:
        small["hold_out"] = 100
    stage = Converge((*kernels, *fits), families=tuple(families), name=name, **settings | small)
    return {need: before[need] for need in ("sources", *kernels, *dict.fromkeys(fits))} | {name: stage}
