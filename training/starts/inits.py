"""How the spatial convolutions of any network may start: what users would pick instead of a prior, and what it is like.

All but the weights of ``Conv2d`` layers with kernels larger than 1×1 stays as it is, so that networks built from one
seed differ in nothing else. The closed-form covariance of Trockman, Willmott & Kolter (2023) is not among them, for
their formula could not be confirmed from a source.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import dwp_init
from dwp_init import Prior
from dwp_init.convolutions import he_rms, is_depthwise
from training.starts.fills import DEFAULT, DWP, DWP_ORTHOGONAL, KAIMING, XAVIER

ORTHOGONAL, DELTA, LSUV = "orthogonal", "delta-orthogonal", "LSUV"
NOISE, GAUSSIAN, LEARNED = "white noise", "empirical Gaussian", "learned kernels"
DWP_CENTRED, DWP_LSUV = "dwp, centred", "dwp, LSUV"
CONTROLS = (DEFAULT, KAIMING, XAVIER, ORTHOGONAL, DELTA, NOISE, LSUV)
FROM_LEARNED, FROM_PRIORS = (GAUSSIAN, LEARNED), (DWP, DWP_ORTHOGONAL, DWP_CENTRED, DWP_LSUV)
BY_BATCH = (LSUV, DWP_LSUV)
INITS = (*CONTROLS, *FROM_LEARNED, *FROM_PRIORS)
KINDS = ("dense", "depthwise")

Learned = Mapping[tuple[str, int], Mapping[float, Tensor]]
"""Learned kernels ``(n, 1, k, k)`` by kind, size k and relative depth, from 0 to 1."""


def initialize_(
    model: nn.Module,
    init: str,
    seed: int,
    *,
    priors: Sequence[str | Path | Prior] | None = None,
    learned: Learned | None = None,
    batch: Tensor | None = None,
) -> None:
    """Draws the weights of a model's spatial convolutions anew, in place, each by the seed and its name.

    ======================  =========================================================================================
    PyTorch default         left as they are
    Kaiming                 N(0, 2 / fan_in) (He et al. 2015)
    Xavier                  N(0, 2 / (fan_in + fan_out)), as ``torch.nn.init`` counts them (Glorot & Bengio 2010)
    orthogonal *            rows of ``(out, in/groups · k · k)``, or its columns, orthogonal (Saxe et al. 2014)
    delta-orthogonal *      0 but for the centre, which is orthogonal (Xiao et al. 2018); it keeps norms, up to one
                            factor, where out ≥ in and groups = 1: elsewhere orthogonal is taken
    white noise *           the control of dwp: Kaiming's law, other draws
    LSUV                    orthogonal, then every layer's activations on ``batch`` of variance 1 (Mishkin & Matas
                            2016), by their package ``lsuv``
    empirical Gaussian *    the Gaussian of ``learned`` kernels of the layer's kind and size, of the nearest depth
    learned kernels *       those kernels themselves, at random
    dwp *                   :func:`dwp_init.apply_`, each kernel drawn independently
    dwp, orthogonal *       that with ``orthogonal=True``
    dwp, centred *          dwp, each kernel less its mean
    dwp, LSUV               dwp, then scaled as LSUV is
    ======================  =========================================================================================

    Those with * have He's root mean square √(2 / fan_in) exactly, layer by layer. A layer that no prior and no learned
    kernel fits, such as one that cuts patches, has Kaiming's draw of that seed.

    Args:
        model: The model, on the CPU.
        init: One of ``INITS``.
        seed: Of the draws; the global random state stays.
        priors: Names, folders or priors, for dwp.
        learned: For the Gaussian and the learned kernels.
        batch: Images for LSUV; biases count, and normalisation layers are in evaluation mode, as in the package.

    Raises:
        ValueError: ``init`` is unknown or lacks what it needs, or no layer fits.
        ImportError: LSUV's package is not installed.
    """
    check_init(init, priors=bool(priors), learned=bool(learned), batch=batch is not None)
    layers = spatial_convolutions(model)
    if not layers:
        raise ValueError("the model has no Conv2d with kernels larger than 1×1; nothing could be initialised")
    if init in FROM_PRIORS:
        drawn = _from_priors_(model, layers, init, seed, priors)
    elif init in FROM_LEARNED:
        drawn = _from_learned_(layers, init, seed, learned)
    else:
        drawn = []
    control = KAIMING if drawn else init
    for name in layers.keys() - drawn if init != DEFAULT else ():
        _control_(layers[name], control, _generator(control, seed, name))
    if init in BY_BATCH:
        _unit_variance_(model, layers, batch)


def check_init(init: str, *, priors: bool, learned: bool, batch: bool = True) -> None:
    """Raises unless ``init`` is one of ``INITS``, and what it needs is there."""
    if init not in INITS:
        raise ValueError(f"init must be one of {'; '.join(INITS)}; got {init!r}")
    for inits, there, way_out in (
        (FROM_PRIORS, priors, "priors="),
        (FROM_LEARNED, learned, "learned="),
        (BY_BATCH, batch, "batch="),
    ):
        if init in inits and not there:
            raise ValueError(f"{init!r} needs {way_out}, which is empty; give it, or choose another initialisation")
    if init in BY_BATCH:
        _lsuv()


def spatial_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Returns the ``Conv2d`` layers with kernels larger than 1×1 by name, in the order of the model's modules."""
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: layer for name, layer in convolutions.items() if math.prod(layer.kernel_size) > 1}


def kind_of(layer: nn.Conv2d) -> str:
    """Returns ``depthwise`` where each input channel is a group of its own, else ``dense``."""
    return KINDS[1] if is_depthwise(layer) else KINDS[0]


def _generator(init: str, seed: int, name: str) -> torch.Generator:
    """Makes a source of randomness of its own for each initialisation: white noise must not be Kaiming's draw again."""
    digest = hashlib.sha256(f"{init}:{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def _control_(layer: nn.Conv2d, init: str, generator: torch.Generator) -> None:
    weight = layer.weight
    if init == KAIMING:
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    elif init == XAVIER:
        nn.init.xavier_normal_(weight, generator=generator)
    elif init == NOISE:
        _write_(layer, torch.randn(weight.shape, generator=generator))
    elif init == DELTA and layer.groups == 1 and weight.shape[0] >= weight.shape[1]:
        centre = nn.init.orthogonal_(torch.empty(weight.shape[:2]), generator=generator)
        spread = torch.zeros(weight.shape)
        spread[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = centre
        _write_(layer, spread)
    else:
        _write_(layer, nn.init.orthogonal_(torch.empty(weight.shape), generator=generator))


@torch.no_grad()
def _write_(layer: nn.Conv2d, weight: Tensor) -> None:
    """Writes a weight, rescaled to He's root mean square."""
    layer.weight.copy_(weight * (he_rms(layer) / weight.square().mean().sqrt()))


@torch.no_grad()
def _from_priors_(
    model: nn.Module,
    layers: Mapping[str, nn.Conv2d],
    init: str,
    seed: int,
    priors: Sequence[str | Path | Prior],
) -> list[str]:
    report = dwp_init.apply_(model, list(priors), layers=list(layers), orthogonal=init == DWP_ORTHOGONAL, seed=seed)
    for drawn in report.drawn if init == DWP_CENTRED else ():
        weight = layers[drawn.layer].weight
        _write_(layers[drawn.layer], weight - weight.mean((2, 3), keepdim=True))
    return report.initialized


def _from_learned_(layers: Mapping[str, nn.Conv2d], init: str, seed: int, learned: Learned) -> list[str]:
    depths = {name: place / max(len(layers) - 1, 1) for place, name in enumerate(layers)}
    fitting = {name: learned.get(_key(layer), {}) for name, layer in layers.items()}
    if not any(fitting.values()):
        there = ", ".join(sorted({f"{kind} {k}×{k}" for kind, k in map(_key, layers.values())}))
        given = ", ".join(f"{kind} {k}×{k}" for kind, k in learned)
        raise ValueError(f"no layer can be initialised: the model has {there} kernels, the learned ones are {given}")
    for name, by_depth in fitting.items():
        if not by_depth:
            continue
        kernels = by_depth[min(by_depth, key=lambda depth: abs(depth - depths[name]))]
        shape, generator = layers[name].weight.shape, _generator(init, seed, name)
        if init == LEARNED:
            drawn = kernels[torch.randint(len(kernels), (shape[0] * shape[1],), generator=generator)]
        else:
            drawn = dwp_init.Gaussian(tuple(kernels.shape[1:])).fit_(kernels).sample(shape[0] * shape[1], generator)
        _write_(layers[name], drawn.reshape(shape))
    return [name for name, by_depth in fitting.items() if by_depth]


def _key(layer: nn.Conv2d) -> tuple[str, int]:
    """Returns what a layer takes of learned kernels; size 0, which there is not, where its own are not square."""
    height, width = layer.kernel_size
    return kind_of(layer), height if height == width else 0


def _lsuv() -> Callable[..., nn.Module]:
    try:
        from lsuv import lsuv_with_singlebatch
    except ImportError as error:
        raise ImportError("LSUV is in a package of its own: pip install 'lsuv>=0.3', or leave LSUV out") from error
    return lsuv_with_singlebatch


class _Hidden(nn.Module):
    """Calls a module that is none of this one's children, so that LSUV does not find it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.hidden = (module,)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](x)


@torch.no_grad()
def _unit_variance_(model: nn.Module, layers: Mapping[str, nn.Conv2d], batch: Tensor) -> None:
    """Rescales the layers, orthogonal already, on a copy in which LSUV sees no others."""
    trial = copy.deepcopy(model)
    for name, module in list(trial.named_modules()):
        if name and name not in layers and isinstance(module, nn.Conv2d | nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(trial.get_submodule(parent), child, _Hidden(module))
    trial = _lsuv()(trial, batch, std_tol=0.02, do_orthonorm=False, verbose=False, device=batch.device)
    for name, layer in layers.items():
        layer.weight.copy_(trial.get_submodule(name).weight)


def channel_rank(model: nn.Module, images: Tensor) -> list[float]:
    """Returns the effective rank of the channels after each spatial convolution, in the order in which they are called.

    It is exp(-Σ p log p), where p are the eigenvalues of the channels' covariance over images and positions, divided by
    their sum (Roy & Vetterli 2007): c where c channels are uncorrelated and of one variance, 1 where all are one
    channel, 0 where all are constant. The model's mode counts, and nothing of it changes.
    """
    return _after_each(model, images, effective_rank)


def activation_scale(model: nn.Module, images: Tensor) -> list[float]:
    """Returns the root mean square √E[y²] after each spatial convolution, biases included, in the order of calls."""
    return _after_each(model, images, lambda y: y.square().mean().sqrt().item())


def effective_rank(activations: Tensor) -> float:
    """Returns exp of the entropy of the eigenvalues of the channels' covariance, of activations ``(n, c, h, w)``.

    It is 0 where all are constant, and where any is not finite.
    """
    flat = activations.double().transpose(0, 1).flatten(1)
    if not flat.isfinite().all():
        return 0.0
    eigenvalues = torch.linalg.eigvalsh(flat.cov().reshape(len(flat), -1)).clamp_min(0)
    if eigenvalues.sum() == 0:
        return 0.0
    return torch.distributions.Categorical(eigenvalues / eigenvalues.sum()).entropy().exp().item()


@torch.no_grad()
def _after_each(model: nn.Module, images: Tensor, measure: Callable[[Tensor], float]) -> list[float]:
    found: list[float] = []
    trial = copy.deepcopy(model)
    for layer in spatial_convolutions(trial).values():
        layer.register_forward_hook(lambda module, inputs, output: found.append(measure(output)))
    trial(images)
    return found
