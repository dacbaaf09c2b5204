"""Learning-free yardsticks for few labels: frozen banks of filters with a Bayesian linear read-out in closed form.

    python -m training run frozen_readout --data-root DATA --workers 2 --from-record --record

``--only frozen_mnist_small`` is the part that takes minutes; ``frozen_mnist`` and ``frozen_fashion`` take hours.

Expected: the paper has no such figure. Its priors reach the accuracies in
``training.experiments.paper.FEW_LABELS["mnist"]`` with the convolutions trained.
Found: ``training/results/frozen_mnist_small.csv``, three splits of one layer of 64 filters and the scattering
transform; the others are not run yet. In that record the smaller sets are random parts of the largest, whose images
also calibrated the banks, so that a row of 50 labels saw 1,000 images; now each size has its own set and calibration.
Departures: no training of convolutions at all. Sources are white noise, draws of the bundled ``notmnist`` priors, and
the eight master key filters of ``natural-dw7x7``, all at He's scale, which the banks divide out. The scattering
transform is kymatio's (``pip install '.[rivals]'``), with 8 angles and cells of 8 pixels, or of 4 in the long parts.
"""

from training.engine.stage import Stage
from training.experiments.frozen_readout import FrozenReadout
from training.recipes import Fields

FOLDER = "frozen_readout"
ONE_LAYER: Fields = {"filters": ((64,), (256,), (1024,), (4096,)), "thresholds": (0.0, 0.5), "grids": ((4,), (4, 2, 1))}
TWO_LAYERS: Fields = {"filters": ((64, 256), (64, 1024)), "thresholds": (0.0,), "grids": ((3,), (3, 1))}
WAVELETS: Fields = {"scattering": ((3, 8), (2, 8))}
SMALL: Fields = {"filters": ((3,), (2, 3)), "scattering": ((3, 2),), "sizes": (10, 20), "seeds": 2}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the part that takes minutes, and banks of one and of two layers on MNIST and on FashionMNIST."""
    small: Fields = SMALL if smoke else {}
    least: Fields = {"name": "frozen_mnist_small", "seeds": 3, "filters": ((64,),), "scattering": ((3, 8),)}
    found: dict[str, Stage] = {"frozen_mnist_small": FrozenReadout(**least | small)}
    for label, data in (("mnist", "mnist"), ("fashion", "fashionmnist")):
        for layers, banks in (("", ONE_LAYER), ("_two_layers", TWO_LAYERS)):
            own: Fields = {"name": f"frozen_{label}{layers}", "data": data}
            found[f"frozen_{label}{layers}"] = FrozenReadout(**own | banks | WAVELETS | small)
    return found
