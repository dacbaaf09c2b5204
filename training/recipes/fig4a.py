"""Fig. 4(a): steps that the paper's image VAE needs on MNIST to reach an ELBO, by initialisation of its convolutions.

    python -m training run fig4a --data-root DATA --workers 2 --record

On an accelerator ``--device cuda --workers 4 vae_converge.seeds=8 vae_converge.test_images=10000``.

Expected: the steps in ``training.experiments.paper.STEPS_TO["fig4a"]``.
Found: ``training/results/fig4a.csv``, each seed in ``fig4a_runs.csv``, and ``fig4a.png``: with two seeds dwp is
ahead of Xavier at every level, by less than in the paper; the 95 % interval of its lead leaves out 0 at three of eight.
Departures: two seeds, where the paper shows one curve, and the ELBO every 20 steps. It does not state the number of
latents (64 here), the padding, which layers are initialised (here all convolutions and transposed ones, of 7×7 and 5×5
kernels), how pixels become binary (here 1 above a half: of three ways in a pilot on held-out training images, the one
nearest to the paper's curve), the batch (128) or the learning rate (1e-3, constant). The ELBO is of 1,000 test images.
Kaiming's and Xavier's are what ``torch.nn.init`` gives: it takes a transposed layer's output channels for its fan-in.
White noise of dwp's RMS is the control. Learned kernels are not in the bundle: name kernels stages in ``needs``.
"""

from training.engine.stage import Stage
from training.experiments.steps_to import StepsTo
from training.experiments.vae_converge import VAEConverge
from training.recipes import Fields

FOLDER = "figures"
BUDGET: Fields = {"seeds": 2, "marks": tuple(range(20, 701, 20))}
SMALL: Fields = {"latent_dim": 4, "seeds": 2, "batch_size": 16, "marks": (2, 4), "test_images": 32}
ELBOS = (-200.0, -180.0, -160.0, -140.0, -120.0, -110.0, -105.0, -100.0)


def runs(smoke: bool) -> VAEConverge:
    """Returns the runs that this figure and Fig. 7 share."""
    small: Fields = SMALL | {"sample_marks": (2, 4), "samples": 4} if smoke else {}
    return VAEConverge(**BUDGET | small)


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs, and the steps to each level."""
    levels = (-600.0, -500.0, -400.0) if smoke else ELBOS
    title = "MNIST: the paper's image VAE"
    steps = StepsTo(("vae_converge",), "fig4a", "elbo", levels, "fig4a", title)
    return {"vae_converge": runs(smoke), "fig4a": steps}
