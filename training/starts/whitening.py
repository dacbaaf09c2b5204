"""Starts with data: the stem whitens patches of the training images, as in airbench (Jordan 2024)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.report import Report
from training.starts.base import BOTH, TASK, ConvLayer, Draw, Fill, Start, add_start
from training.starts.controls import partial_identity
from training.starts.natural import as_applied, planned

WHITENED, WHITENED_DIRAC, WHITENED_NATURAL = "whitened stem", "whitened stem, dirac", "whitened stem, natural"
IMAGES_AT_A_TIME = 64
AIRBENCH_RIDGE = 5e-4  # of the mean eigenvalue, as in airbench


def whitening_filters(images: Tensor, layer: ConvLayer) -> Tensor:
    """Returns ± vᵢ / √(λᵢ + ε), ``(2 · c · h · w, c, h, w)``, the largest eigenvalues first, + before −.

    λᵢ and vᵢ are the eigenvalues and eigenvectors of Pᵀ P / n, where P are all n patches of the images that have the
    size and the dilation of the layer's kernels. Responses of the filters with + to the patches are uncorrelated, with
    mean squares λᵢ / (λᵢ + ε). ε is 5e-4 of the mean eigenvalue, which is 1 for the normalised images of airbench;
    thus images of another scale give the same responses.
    """
    dim, count = layer.weight[0].numel(), 0
    second = torch.zeros(dim, dim, dtype=torch.float64)
    for part in images.float().split(IMAGES_AT_A_TIME):
        patches = F.unfold(part, layer.kernel_size, layer.dilation).transpose(1, 2).reshape(-1, dim)
        second += (patches.mT @ patches).double()
        count += len(patches)
    values, vectors = torch.linalg.eigh(second / count)
    filters = (vectors / (values.clamp_min(0) + AIRBENCH_RIDGE * values.mean()).sqrt()).mT.flip(0).float()
    return torch.stack([filters, -filters], 1).reshape(2 * dim, *layer.weight.shape[1:])


@torch.no_grad()
def whitened(draw: Draw, others: Fill | None = None) -> Mapping[str, float]:
    """Fills the stem, the first convolution, with as many whitening filters as it has outputs.

    Outputs beyond the ``2 · c · k · k`` filters keep what they have. Unlike airbench's, the stem is trained like all
    other layers.

    Args:
        draw: The draw.
        others: Fills all other layers; without it, they stay as they are.

    Raises:
        ValueError: The first convolution does not read the images, or has groups or is transposed.
    """
    name = next((name for name, layer in draw.described().items() if layer.first), "")
    stem, channels = draw.layers.get(name), draw.batch.shape[1]
    if not isinstance(stem, nn.Conv2d) or stem.groups > 1 or stem.in_channels != channels:
        found = f"{name} ({stem})" if stem else "not among the layers to fill"
        raise ValueError(
            f"{draw.start!r} needs a first convolution, in one group, of images of {channels} channels, but it is "
            f"{found}; leave this start out"
        )
    filled: dict[str, float] = {}
    if others and len(draw.layers) > 1:
        rest = {other: layer for other, layer in draw.layers.items() if other != name}
        filled |= others(replace(draw, layers=rest))
    filters = whitening_filters(draw.batch, stem)[: stem.out_channels]
    stem.weight[: len(filters)] = filters
    return filled | {name: len(filters) / stem.out_channels}


whitened_start = partial(Start, trained_on=TASK, keeps_rest=True)
add_start(whitened_start(WHITENED, "whitened stem", "#00838f", ("batch",), whitened))
with_identities = partial(whitened, others=partial_identity)
add_start(whitened_start(WHITENED_DIRAC, "whitened stem, dirac", "#4dd0e1", ("batch",), with_identities))
with_natural = partial(whitened, others=as_applied)


def planned_behind_stem(draw: Draw) -> Report:
    """Returns the report of what ``natural`` draws but for the stem."""
    behind = {name: draw.layers[name] for name, layer in draw.described().items() if not layer.first}
    return planned(replace(draw, layers=behind))


add_start(
    Start(
        WHITENED_NATURAL,
        "whitened stem, natural",
        "#006064",
        ("priors", "batch"),
        with_natural,
        trained_on=BOTH,
        keeps_rest=True,
        plan=planned_behind_stem,
    )
)
