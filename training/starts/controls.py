"""Starts that know nothing of learned kernels: the controls.

The closed-form covariance of Trockman, Willmott & Kolter (2023) is missing because the formula could not be confirmed
from a source.
"""

import copy

import torch
from torch import Tensor, nn

from training.starts.base import KAIMING, ConvLayer, Draw, Start, add_start, at_he_rms, each

DEFAULT, XAVIER, ORTHOGONAL, DELTA, LSUV = "PyTorch default", "Xavier", "orthogonal", "delta-orthogonal", "LSUV"
NOISE, NOISE_HE = "white noise", "white noise, dwp's RMS"


def kaiming(layer: ConvLayer, generator: torch.Generator) -> Tensor:
    """N(0, 2 / fan_in), as ``torch.nn.init`` counts (He et al. 2015): a transposed layer's outputs as its inputs."""
    return nn.init.kaiming_normal_(torch.empty(layer.weight.shape), nonlinearity="relu", generator=generator)


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


class _Hidden(nn.Module):
    """Calls a module that is not one of its children, so that LSUV does not find it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.hidden: tuple[nn.Module] = (module,)

    def forward(self, x: Tensor) -> Tensor:
        """Maps what the module maps."""
        found: Tensor = self.hidden[0](x)
        return found


@torch.no_grad()
def unit_variance_(draw: Draw) -> None:
    """Rescales the layers to activations of variance 1 on the batch (Mishkin & Matas 2016), by the package ``lsuv``.

    It works on a copy of the network in which LSUV sees no other layers.

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
    trial = lsuv_with_singlebatch(trial, draw.batch, **options)
    for name, layer in draw.layers.items():
        layer.weight.copy_(trial.get_submodule(name).get_parameter("weight"))


add_start(Start(DEFAULT, "PyTorch's default", "#b7950b", (), lambda draw: draw.layers.keys()))
add_start(Start(KAIMING, "Kaiming", "#1e8449", (), each(kaiming)))
add_start(Start(XAVIER, "Xavier", "#17202a", (), each(xavier)))
add_start(Start(ORTHOGONAL, "orthogonal", "#2471a3", (), each(orthogonal)))
add_start(Start(DELTA, "delta-orthogonal", "#5dade2", (), each(delta_orthogonal)))
add_start(Start(NOISE, "white noise", "#7f8c8d", (), each(white_noise), aliases=(NOISE_HE,)))
add_start(Start(LSUV, "LSUV", "#8e44ad", ("batch",), each(orthogonal), unit_variance_))
