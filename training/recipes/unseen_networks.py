"""Priors of dense 3×3 kernels and RGB stems of public networks, each on networks held out as a whole.

    python -m training run unseen_networks --data-root DATA

The networks of ``unseen_sources.toml``, most of whose files DATA must have, are held out family by family: the others
are fitted by mixtures of Gaussians, with one family to choose the mixture by; stems with their mirror images too. Next
to them are two other fits to the depthwise kernels of ``prior_natural``, of many components and of the kernels
themselves, and a fit to a network of faces alone. Nothing here is part of a prior that is published.

Expected: log p above that of a Gaussian fitted to the same kernels, by 0.8 nats for dense 3×3 kernels and by 10 for
stems, and draws that a nearest-neighbour test tells from held-out kernels at an accuracy of at most .60.
Found: ``training/results/unseen_networks.csv``.
Cost: ten minutes on one core, and 60 MB of downloads.
Departures: siblings that were trained apart, the three ResNets of CIFAR-10, are one family and held out together.
"""

from typing import Any

from training.engine.stage import Stage
from training.experiments.unseen_networks import UnseenNetworks
from training.fits.density import FitDensity
from training.fits.mixture import FitMixture
from training.kernels.harvested import HarvestedKernels
from training.kernels.mirrored import MirroredKernels
from training.recipes import Fields, prior_natural

FOLDER = "natural"
_MANIFEST = "training/recipes/unseen_sources.toml"
_HELD_OUT = {
    "dense": ("cifar10_resnet", "squeezenet", "open-nsfw", "dlib", "mtcnn", "alike", "kair", "waifu2x"),
    "stem": ("cifar10_resnet", "squeezenet", "efficientnet-lite0", "efficientnet-lite2", "mediapipe", "mtcnn"),
}
_MANY: Fields = {"components": (64,), "shrinkages": (1.0,), "restarts": 1}
_SMOKE: Fields = {"components": (2,), "shrinkages": (100.0,), "restarts": 1}


def stages(smoke: bool = False) -> dict[str, Stage]:
    """Returns the kernels with each family held out, the fits to the others, and the table of all.

    Args:
        smoke: Whether to shrink everything.
    """
    made: dict[str, Stage] = {}
    fits = [_hold_out(made, kind, family, smoke) for kind, families in _HELD_OUT.items() for family in families]
    fits.append(_hold_out(made, "dense", "mtcnn", smoke, "training/recipes/faces_sources.toml"))
    natural = prior_natural.stages(smoke)
    for kind in prior_natural.KERNEL_SIZES:
        kernels = f"kernels_{kind}"
        made[kernels] = natural[kernels]
        made[f"many_{kind}"] = FitMixture((kernels,), f"{kind}-64", **_SMOKE if smoke else _MANY)
        made[f"kde_{kind}"] = FitDensity((kernels,), f"{kind}-kde")
        fits += [f"many_{kind}", f"kde_{kind}"]
    return made | {"unseen_networks": UnseenNetworks(tuple(fits))}


def _hold_out(made: dict[str, Stage], kind: str, family: str, smoke: bool, manifest: str = _MANIFEST) -> str:
    """Adds the kernels of others than a family and the fit to them; returns the name of the fit."""
    of = "faces_" if manifest != _MANIFEST else ""
    kernels, fit = f"unseen_{of}{kind}_{family}", f"fit_{of}{kind}_{family}"
    made[kernels] = HarvestedKernels(manifest=manifest, kind=kind, size=(3, 3), test=(f"*{family}*",), per_layer=700)
    grid: dict[str, Any] = {"components": (8,), "shrinkages": (10.0, 30.0), "restarts": 2, "most": 6000}
    if kind == "stem":
        made[f"mirrored_{family}"] = MirroredKernels((kernels,))
        kernels, grid = f"mirrored_{family}", {"components": (4, 8), "shrinkages": (10.0, 30.0), "restarts": 2}
    made[fit] = FitMixture((kernels,), f"{of or ''}{kind} without {family}", **_SMOKE if smoke else grid)
    return fit
