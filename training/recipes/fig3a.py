"""Fig. 3(a): random features on MNIST: convolutions drawn and fixed, the linear layer trained, at five widths.

    python -m training run fig3a --data-root DATA --workers 2 --record

On an accelerator, the paper's ten runs: ``--device cuda --workers 4 fig3a.seeds=10``.

Expected: the test accuracies in ``training.experiments.paper.RANDOM_FEATURES["mnist"]``.
Found: ``training/results/fig3a.csv``, each seed in ``fig3a_runs.csv``, and ``fig3a.png``: dwp is ahead of Xavier on
average at every k, by the adjusted p-value at 1/8, 1/2 and 1; it is below the paper's up to k = 1/4, Xavier at every k.
Departures: the paper states no training. Here it is 10 passes of Adam in batches of 256 from 3e-2 linearly to 0, chosen
on held-out training images, on features divided by one number, their root mean square; four seeds, for a CPU. The
biases of convolutions are PyTorch's, as in the authors' code. The paper's dwp has the source's own scale and no noise;
here are draws with noise, at He's scale (``dwp``), at their own scale, and with orthogonal output channels. Controls:
Kaiming and white noise, of one law but other draws, and white noise at the prior's own scale. Learned kernels are not
in the bundle: name kernels stages in ``needs``.
"""

from training.engine.stage import Stage
from training.experiments.random_features import RandomFeatures
from training.recipes import Fields

FOLDER = "figures"
BUDGET: Fields = {"epochs": 10, "lr": 3e-2, "seeds": 4}
SMALL: Fields = {"filters": (4, 4), "scales": (0.5, 1.0), "seeds": 2, "epochs": 1}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the runs; other data, networks and priors are settings of the same stage."""
    return {"fig3a": RandomFeatures(name="fig3a", **BUDGET | (SMALL if smoke else {}))}
