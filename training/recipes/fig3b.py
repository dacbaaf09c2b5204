"""Fig. 3(b): random features on CIFAR-10: convolutions drawn and fixed, the linear layers trained, at three widths.

    python -m training run fig3b --data-root DATA --workers 2 --record

On an accelerator also the full width, and the paper's ten runs: ``--device cuda --workers 4
fig3b.scales=0.125,0.25,0.5,1 fig3b.seeds=10``.

Expected, test accuracy in % at k = 1/8, 1/4, 1/2 and 1 of the filters, read off Fig. 3(b): dwp 63.70, 65.93, 67.73,
68.95; Xavier 62.15, 63.86, 64.95, 65.60; learned kernels 65.29, 68.04, 70.28, 71.02.
Found: ``training/results/fig3b.csv``, each seed in ``fig3b_runs.csv``, and ``fig3b.png``: ``natural`` is ahead of
Xavier at each of the three widths, by more than the paper's dwp is, independent draws are level with Xavier; all are
below the paper's accuracies.
Departures: the paper states no training; here 10 passes of Adam in batches of 256 from 3e-3 linearly to 0, picked on
held-out training images by the mean over Kaiming and ``natural``, on features divided by one number, their root mean
square. Priors of Tiny ImageNet's networks, in place of CIFAR-100's, the first layer's a joint one of three channels;
three seeds, for a CPU. ``dwp`` has independent draws, as in the paper, ``dwp, orthogonal`` is what ``apply_(model,
"natural")`` does; both at He's scale, with noise. Controls: Kaiming and white noise, of one law but other draws.
"""

from training.engine.stage import Stage
from training.experiments.random_features import RandomFeatures
from training.starts.fills import DWP, DWP_ORTHOGONAL, KAIMING, NOISE, XAVIER

FOLDER = "figures"
BUDGET = {
    "data": "cifar10",
    "network": "cifar",
    "filters": (128, 256, 256),
    "scales": (1 / 8, 1 / 4, 1 / 2),
    "priors": ("natural",),
    "inits": (DWP, DWP_ORTHOGONAL, XAVIER, KAIMING, NOISE),
    "seeds": 3,
    "epochs": 10,
    "lr": 3e-3,
}
SMALL = {"filters": (8, 8, 8), "scales": (0.5, 1.0), "seeds": 2, "epochs": 1}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """The runs; other data, networks and priors are settings of the same stage."""
    return {"fig3b": RandomFeatures(name="fig3b", **BUDGET | (SMALL if smoke else {}))}
