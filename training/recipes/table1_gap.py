"""Table 1: what the auxiliary bound gives away, per layer and in total, and what training the reverse model is worth.

    python -m training run table1_gap --data-root DATA --workers 2 --record

Expected: the bounds in ``training.experiments.paper.TABLE_1``, so a gap of at least 13,418 nats. Neither network nor
data are stated; over the 4,128 kernels of the MNIST network the gap is 3.25 nats per kernel.
Found: ``training/results/table1_gap.csv`` with the dense VAEs, ``table1_gap_h1.csv`` with the paper's networks.
``table1_semi_implicit.csv`` is the same for networks that are trained by the semi-implicit bound, and
``table1_semi_implicit_draws.csv`` has the gap of that bound for several numbers of draws K.
Departures: 200 labels, 1,000 steps; the importance-weighted bound with a defensive proposal, on random kernels of each
layer; additional rows with ψ fixed at the encoder, as in the authors' code, and with the semi-implicit bound.
"""

from training.engine.stage import Stage
from training.experiments.few_labels import DWP_PRIOR, DWP_SEMI_IMPLICIT
from training.experiments.gap import Gap
from training.recipes import Fields, fig2a_mnist

FOLDER = fig2a_mnist.FOLDER
BUDGET: Fields = {"splits": 3, "steps": 1000, "batch_size": 32, "lr": 3e-3}
SMALL: Fields = {"filters": (4, 4), "size": 20, "splits": 2, "steps": 4, "batch_size": 10, "samples": 20, "kernels": 4}
LATENTS_TRIED = (1, 2, 5, 10, 20, 50)
PAPER = ("notmnist-7x7-h1", "notmnist-5x5-h1")


def stages(smoke: bool = False) -> dict[str, Stage]:
    small = SMALL if smoke else {}
    paper: Fields = {"name": "table1_gap_h1", "vaes": PAPER, "splits": 2, "subset": 256, "kernels": 64}
    sivi: Fields = {"name": "table1_semi_implicit", "priors": (DWP_PRIOR, DWP_SEMI_IMPLICIT), "draws": LATENTS_TRIED}
    return {
        "table1_gap": Gap(**BUDGET | small),
        "table1_gap_h1": Gap(**BUDGET | paper | small),
        "table1_semi_implicit": Gap(**BUDGET | sivi | small),
    }
