"""Fig. 7: samples of the paper's image VAE after 100 to 500 steps, from dwp's draws and from Xavier's.

    python -m training run fig7 --data-root DATA --workers 2 --record

Expected: with dwp, samples are digits after some 200 steps, with Xavier later (Appendix E; a picture only).
Found: ``training/results/fig7.png``, of the first seed.
Departures: those of ``fig4a``, from whose runs this is made; means of p(x|z), with the same latents in all panels; no
row from learned kernels.
"""

from training.engine.stage import Stage
from training.experiments.vae_converge import SampleGrid
from training.recipes import fig4a

FOLDER = fig4a.FOLDER


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs of Fig. 4(a), reused if they are finished, and the picture."""
    return {"vae_converge": fig4a.runs(smoke), "fig7": SampleGrid(("vae_converge",), "fig7")}
