"""Starts that know nothing of learned kernels: the controls.

The closed-form covariance of Trockman, Willmott & Kolter (2023) is missing because the formula could not be confirmed
from a source.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.starts.base import KAIMING, TASK, ConvLayer, Draw, Start, add_start, at_he_rms, each

OWN, OTHER_DRAWS = "own", "own, other draws"
FAN_OUT, XAVIER, ORTHOGONAL, DELTA = "Kaiming fan-out", "Xavier", "orthogonal", "delta-orthogonal"
DIRAC, LSUV = "dirac", "LSUV"
NOISE, NOISE_HE = "white noise", "white noise, dwp's RMS"
OTHER_SEED = 10**6
LSUV_IMAGES = 128


def kaiming(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """N(0, 2 / fan_in), as ``torch.nn.init`` counts (He et al. 2015): a transposed layer's outputs as its inputs."""
    return nn.init.kaiming_normal_(torch.empty(layer.weight.shape), nonlinearity="relu", generator=generator)


def kaiming_fan_out(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """N(0, 2 / fan_out), as ``torch.nn.init`` counts, groups left out, and as torchvision initialises its ResNets."""
    weight = torch.empty(layer.weight.shape)
    return nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)


def xavier(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """N(0, 2 / (fan_in + fan_out)), as ``torch.nn.init`` counts them (Glorot & Bengio 2010)."""
    return nn.init.xavier_normal_(torch.empty(layer.weight.shape), generator=generator)


def white_noise(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """Independent normal weights of He's root mean square: the control of dwp."""
    return at_he_rms(layer, torch.randn(layer.weight.shape, generator=generator))


def orthogonal(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """Rows of the matrix ``(out, in/groups · k · k)``, or its columns, orthogonal (Saxe et al. 2014); He's scale."""
    return at_he_rms(layer, nn.init.orthogonal_(torch.empty(layer.weight.shape), generator=generator))


def delta_orthogonal(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """0 except at the centre, which is orthogonal (Xiao et al. 2018), at He's scale.

    It keeps norms, up to one factor, where out ≥ in and groups = 1. Elsewhere :func:`orthogonal` is taken.
    """
    if layer.groups > 1 or layer.out_channels < layer.in_channels:
        return orthogonal(layer, generator)
    weight = torch.zeros(layer.weight.shape)
    centre = nn.init.orthogonal_(torch.empty(weight.shape[:2]), generator=generator)
    weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = centre
    return at_he_rms(layer, weight)


@torch.no_grad()
def partial_identity(draw: Draw) -> Mapping[str, float]:
    """Makes the first output channels of each layer copies of its input channels, as airbench does (Jordan 2024).

    Of a group with n input channels, these are the first n output channels, by ``torch.nn.init.dirac_``; other output
    channels keep what they have. A depthwise layer without a multiplier thus becomes the identity.
    Stems are filled too, which airbench whitens instead.
    """
    filled: dict[str, float] = {}
    for name, layer in draw.described().items():
        weight = draw.layers[name].weight
        by_group = layer.filters(weight).clone().unflatten(0, (layer.groups, -1))
        for filters in by_group:
            nn.init.dirac_(filters[: layer.inputs])
        weight.copy_(layer.arrange(by_group.flatten(0, 1)))
        filled[name] = min(layer.inputs / by_group.shape[1], 1.0)
    return filled


@torch.no_grad()
def other_draws(draw: Draw) -> Mapping[str, float]:
    """Copies the convolutions, with their biases, from the same network built from another seed: 10⁶ further on.

    It has the law of the network's own start, and everything else as the network has it. Two starts of one law show how
    often a comparison finds a difference where there is none.

    Raises:
        ValueError: The other network has other convolutions.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        others = dict(draw.again(OTHER_SEED + draw.seed).named_modules())
    for name, layer in draw.layers.items():
        theirs = others.get(name)
        if not isinstance(theirs, type(layer)) or theirs.weight.shape != layer.weight.shape:
            raise ValueError(f"again= must build the same network, but {name} is {theirs} there, and {layer} here")
        layer.load_state_dict(theirs.state_dict())
    return dict.fromkeys(draw.layers, 1.0)


class _Hidden(nn.Module):
    """Stands for a module that is not one of its children, so that LSUV does not find it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.hidden: tuple[nn.Module] = (module,)

    def __getattr__(self, name: str) -> Any:
        """Looks up what it lacks, such as a weight that a network reads, in the module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["hidden"][0], name)

    def forward(self, x: Tensor) -> Tensor:
        """Maps what the module maps."""
        found: Tensor = self.hidden[0](x)
        return found


@torch.no_grad()
def unit_variance_(draw: Draw) -> None:
    """Rescales the layers to activations of variance 1 (Mishkin & Matas 2016), by the package ``lsuv``.

    It works on a copy of the network in which LSUV sees no other layers, and on the first images of the batch.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        from lsuv import lsuv_with_singlebatch
    except ImportError as error:
        raise ImportError("LSUV is in a package of its own: pip install 'lsuv>=0.3', or leave LSUV out") from error
    trial = copy.deepcopy(draw.network)
    for name, module in list(trial.named_modules()):
        if name and name not in draw.layers and isinstance(module, ConvLayer | nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(trial.get_submodule(parent), child, _Hidden(module))
    options = {"std_tol": 0.02, "do_orthonorm": False, "verbose": False, "device": draw.batch.device}
    trial = lsuv_with_singlebatch(trial, draw.batch[:LSUV_IMAGES], **options)
    for name, layer in draw.layers.items():
        layer.weight.copy_(trial.get_submodule(name).get_parameter("weight"))


add_start(Start(OWN, "the model's own", "#b7950b", (), lambda draw: {}, aliases=("PyTorch default",), keeps_rest=True))
add_start(Start(OTHER_DRAWS, "the model's own, other draws", "#f4d03f", ("again",), other_draws, control=True))
add_start(Start(KAIMING, "Kaiming", "#1e8449", (), each(kaiming)))
add_start(Start(FAN_OUT, "Kaiming fan-out", "#82e0aa", (), each(kaiming_fan_out)))
add_start(Start(XAVIER, "Xavier", "#17202a", (), each(xavier)))
add_start(Start(ORTHOGONAL, "orthogonal", "#2471a3", (), each(orthogonal)))
add_start(Start(DELTA, "delta-orthogonal", "#5dade2", (), each(delta_orthogonal)))
add_start(Start(DIRAC, "dirac", "#34495e", (), partial_identity, keeps_rest=True))
add_start(Start(NOISE, "white noise", "#7f8c8d", (), each(white_noise), aliases=(NOISE_HE,)))
add_start(Start(LSUV, "LSUV", "#8e44ad", ("batch",), each(orthogonal), unit_variance_, trained_on=TASK))
