"""The stem of ``natural``: filters of any size that whiten the patches of photographs.

    python -m training run prior_natural_stem --data-root DATA
    python -m training run prior_natural_stem --data imagefolder:PATH    # of your own images

Expected: airbench (Jordan 2024) trains to 94 % on CIFAR-10 in 21 epochs instead of 34 with a stem that whitens the
patches of its training images.
Found: ``model_cards/benchmark.md`` has whitening by the task's images; these filters as the stem of ``natural``.
Cost: seconds.
Departures: the covariances are those of 30 classes of Tiny ImageNet at 32×32 of which no task of the benchmark has
images, and stationary, so that one fit gives filters of any size, dilation and number of channels.
"""

from training.engine.stage import Stage
from training.fits.patches import FitPatches
from training.images.own import short_name

FOLDER = "natural_stem"
DATA = "tinyimagenet32-a[70:100]"
PRIORS = {"natural-stem": "patches"}


def stages(smoke: bool = False, data: str = DATA) -> dict[str, Stage]:
    """Returns the one fit.

    Args:
        smoke: Whether to shrink the fit; its images are synthetic then.
        data: The images; the prior is named after them.
    """
    label = "natural" if data == DATA else short_name(data)
    return {"patches": FitPatches(name=f"{label}-stem", data=data, span=8 if smoke else 16)}
