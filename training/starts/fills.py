"""How the convolutions of a network start: draws from priors, controls of a known scale, learned kernels."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

import dwp_init
from dwp_init.convolutions import he_rms
from training.kernels.kernelset import KernelSet

DWP, DWP_OWN, DWP_ORTHOGONAL = "dwp", "dwp, prior's scale", "dwp, orthogonal"
DEFAULT, XAVIER, KAIMING = "PyTorch default", "Xavier", "Kaiming"
NOISE, NOISE_OWN = "white noise, dwp's RMS", "white noise, prior's scale"
LEARNED, LEARNED_OWN = "learned kernels, He's RMS", "learned kernels, own scale"
FROM_PRIORS, FROM_KERNELS = (DWP, DWP_OWN, DWP_ORTHOGONAL, NOISE_OWN), (LEARNED, LEARNED_OWN)
INITS = (DEFAULT, XAVIER, KAIMING, NOISE, *FROM_PRIORS, *FROM_KERNELS)
Convolution = nn.Conv2d | nn.ConvTranspose2d


def check_inits(inits: Sequence[str], priors: Sequence[str], kernels: Mapping[int, Tensor]) -> None:
    """Raises ``ValueError`` where an initialisation is unknown, named twice, or lacks its priors or learned kernels."""
    unknown = [init for init in inits if init not in INITS]
    if unknown or not inits or len(set(inits)) < len(inits):
        raise ValueError(f"inits must be some of {'; '.join(INITS)}, each once; got {'; '.join(inits) or 'none'}")
    for needed, there, way_out in (
        (FROM_PRIORS, priors, "name priors="),
        (FROM_KERNELS, kernels, "name kernels stages in needs="),
    ):
        lacking = [init for init in inits if init in needed]
        if lacking and not there:
            raise ValueError(f"{'; '.join(lacking)} cannot be drawn from nothing: {way_out}, or leave them out")


def learned_kernels(folders: Iterable[Path]) -> dict[int, Tensor]:
    """Reads the kernels to draw from, ``(n, 1, k, k)``, of several kernels stages, by k.

    Raises:
        ValueError: Two stages hold kernels of one size, or a stage holds kernels of several channels.
    """
    found: dict[int, Tensor] = {}
    for folder in folders:
        kernels = KernelSet.load(folder).train
        channels, k = kernels.shape[1:3]
        if channels != 1:
            raise ValueError(f"{folder.name} holds kernels of {channels} channels; single ones are drawn, of 1 channel")
        if k in found:
            raise ValueError(f"{folder.name} is the second stage with {k}×{k} kernels; name one for each size in needs")
        found[k] = kernels
    return found


def initialize_(
    network: nn.Module,
    init: str,
    seed: int,
    priors: Sequence[str] = (),
    kernels: Mapping[int, Tensor] | None = None,
    layers: Sequence[str] = ("*",),
) -> None:
    """Draws the weights of a network's convolutions anew, in place, on the CPU; all else stays as it is.

    ``dwp`` has, layer by layer, the root mean square √(2 / fan_in) of He et al. (2015), so that white noise of dwp's
    RMS has the law of Kaiming's normal initialisation in a ``Conv2d``. In a ``ConvTranspose2d`` it has not:
    ``torch.nn.init`` takes the output channels for the fan-in there, and the stride for 1. Draws are independent, as in
    the paper, but those of ``dwp, orthogonal``: :func:`dwp_init.apply_` with ``orthogonal=True``.

    Args:
        network: The network.
        init: One of ``INITS``.
        seed: Of the draws.
        priors: The bundled priors, one for each kernel size, or a set.
        kernels: Learned kernels ``(n, 1, k, k)`` by k.
        layers: Patterns of layer names.

    Raises:
        ValueError: ``init`` is unknown or lacks its priors or kernels, or no convolution or kernel size fits.
    """
    kernels = kernels or {}
    check_inits((init,), priors, kernels)
    named = [(name, module) for name, module in network.named_modules() if isinstance(module, Convolution)]
    chosen = [(name, module) for name, module in named if any(fnmatchcase(name, pattern) for pattern in layers)]
    if not chosen:
        raise ValueError(
            f"layers={tuple(layers)} match no convolution; there are {', '.join(name for name, _ in named)}"
        )
    generator = torch.Generator().manual_seed((5000 if init.startswith("white noise") else 1000) + seed)
    if init in FROM_PRIORS:
        scale, orthogonal = "prior" if init in (DWP_OWN, NOISE_OWN) else "fan_in", init == DWP_ORTHOGONAL
        chosen_by = {"layers": tuple(layers), "strict": True}
        dwp_init.apply_(network, list(priors), scale=scale, orthogonal=orthogonal, seed=seed, **chosen_by)
    for name, layer in chosen:
        k = layer.kernel_size[0]
        if init in FROM_KERNELS and k not in kernels:
            sizes = ", ".join(f"{size}×{size}" for size in kernels)
            raise ValueError(f"{name} has {k}×{k} kernels, and the learned ones are {sizes}: name a stage with others")
        fill_(layer, init, generator, kernels.get(k))


@torch.no_grad()
def fill_(layer: Convolution, init: str, generator: torch.Generator, kernels: Tensor | None = None) -> None:
    """Fills one layer's weight by a control or from learned kernels; other initialisations leave it as it is."""
    weight = layer.weight
    if init == XAVIER:
        nn.init.xavier_normal_(weight, generator=generator)
    elif init == KAIMING:
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    elif init in (NOISE, NOISE_OWN):
        rms = he_rms(layer) if init == NOISE else weight.square().mean().sqrt()
        weight.copy_(torch.randn(weight.shape, generator=generator) * rms)
    elif init in FROM_KERNELS:
        picked = torch.randint(len(kernels), (weight[:, :, 0, 0].numel(),), generator=generator)
        drawn = kernels[picked].reshape(weight.shape)
        weight.copy_(drawn if init == LEARNED_OWN else drawn * he_rms(layer) / drawn.square().mean().sqrt())
