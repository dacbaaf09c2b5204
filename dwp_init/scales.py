"""Which layers keep their scale by default, and which take He's because no author chose theirs."""

from dataclasses import replace

from torch import nn

from dwp_init.authored import is_untouched
from dwp_init.chain import Rectified, normalises, rectified
from dwp_init.draw import Options
from dwp_init.layers import Layer

_MANY = 4  # layers with PyTorch's scale in a network that is deep enough to matter


def decide(model: nn.Module, layers: list[Layer], options: Options) -> tuple[Options, list[str]]:
    """Returns the options with the layers that take He's response with ``scale="auto"``, and notes for the report.

    The weights of these layers are from PyTorch's default distribution, which no author chose: in a chain of
    convolutions and ReLUs activations then shrink by about √6 a layer. Of these, the dense ones of odd size behind
    another rectifier may pass their inputs on, because these are not below 0.

    Args:
        model: The model.
        layers: The layers that are to be drawn.
        options: The options without these layers.
    """
    scale = options.scale
    names = rectified(model) if scale == "auto" else Rectified()
    untouched = [layer for layer in layers if layer.name in names.all and is_untouched(layer)]
    raised = frozenset(layer.name for layer in untouched)
    passing = frozenset(layer.name for layer in untouched if layer.name in names.linear and _may_pass(layer))
    notes = _notes(model, layers, len(raised)) if scale in ("auto", "keep") else []
    return replace(options, raised=raised, passing=passing), notes


def _may_pass(layer: Layer) -> bool:
    """Whether a layer can return its inputs: its kernels have a middle, no input is lost, and it is no stem."""
    odd, wide = all(k % 2 for k in layer.size), layer.shape[0] >= layer.inputs * layer.groups
    return odd and wide and not layer.first and not layer.is_depthwise and type(layer) is Layer


def _notes(model: nn.Module, layers: list[Layer], raised: int) -> list[str]:
    if raised:
        return [
            f"{raised} of {len(layers)} layers had PyTorch's default scale in a chain without normalisation, and take "
            "He's; scale='keep' keeps theirs"
        ]
    if len(layers) < _MANY or any(map(normalises, model.modules())):
        return []
    untouched = sum(map(is_untouched, layers))
    if 2 * untouched <= len(layers):
        return []
    return [
        f"{untouched} of {len(layers)} layers have PyTorch's default scale, and nothing normalises: if there are no "
        "residual connections either, scale='fan_in' is better"
    ]
