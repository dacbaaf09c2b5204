"""Fig. 3(b): random features on CIFAR-10: convolutions drawn and fixed, the linear layers trained, at three widths.

    python -m training run fig3b --data-root DATA --workers 2 --record

On an accelerator, also the full width, and the paper's ten runs: ``--device cuda --workers 4
fig3b.scales=0.125,0.25,0.5,1 fig3b.seeds=10``.

Expected: the test accuracies in ``training.experiments.paper.RANDOM_FEATURES["cifar10"]``.
Found: ``training/results/fig3b.csv``, each seed in ``fig3b_runs.csv``, and ``fig3b.png``: orthogonal draws are ahead
of Xavier at each of the three widths, by more than the paper's dwp is, on three seeds and by the adjusted p-value at
k = 1/2 alone; independent draws are level with Xavier; all are below the paper's accuracies.
Departures: as in ``fig3a``, from 3e-3, chosen by the mean over Kaiming and orthogonal draws; three seeds. The
priors are those of ``natural-v1``, of Tiny ImageNet's networks instead of CIFAR-100's, the first layer's a joint one of
three channels. ``dwp`` has independent draws, as in the paper, ``dwp, orthogonal`` orthogonal ones, as ``natural-v1``
makes them; both at He's scale, with noise. ``apply_(model, "natural")`` is the second edition, which draws otherwise.
Controls: Kaiming and white noise, of one law but other draws.
"""

from training.engine.stage import Stage
from training.experiments.random_features import RandomFeatures
from training.recipes import Fields
from training.starts.base import KAIMING
from training.starts.controls import NOISE_HE, XAVIER
from training.starts.priors import DWP, DWP_ORTHOGONAL

FOLDER = "figures"
BUDGET: Fields = {
    "data": "cifar10",
    "network": "cifar",
    "filters": (128, 256, 256),
    "scales": (1 / 8, 1 / 4, 1 / 2),
    "priors": ("natural-v1",),
    "inits": (DWP, DWP_ORTHOGONAL, XAVIER, KAIMING, NOISE_HE),
    "seeds": 3,
    "epochs": 10,
    "lr": 3e-3,
}
SMALL: Fields = {"filters": (8, 8, 8), "scales": (0.5, 1.0), "seeds": 2, "epochs": 1}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs; other data, networks and priors are settings of the same stage."""
    return {"fig3b": RandomFeatures(name="fig3b", **BUDGET | (SMALL if smoke else {}))}
