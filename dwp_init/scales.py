"""Which layers keep their scale by default, and which take He's because no author chose theirs."""

from typing import NamedTuple

from torch import nn

from dwp_init.authored import is_untouched
from dwp_init.chain import Rectified, normalises, rectified
from dwp_init.draw import Scale
from dwp_init.layers import Layer

_MANY = 4  # layers with PyTorch's scale in a network that is deep enough to matter


class Decision(NamedTuple):
    """Names of layers that an author did not set up, and notes for the report.

    Attributes:
        raised: Those that take He's response.
        passing: Those of them whose first channels may pass their inputs on.
        notes: Sentences.
    """

    raised: frozenset[str]
    passing: frozenset[str]
    notes: list[str]


def decide(model: nn.Module, layers: list[Layer], scale: Scale) -> Decision:
    """Decides which layers take He's response with ``scale="auto"``.

    The weights of these layers are from PyTorch's default distribution, which no author chose: in a chain of
    convolutions and ReLUs activations then shrink by about √6 a layer. Of these, the dense ones of odd size behind
    another rectifier may pass their inputs on, because these are not below 0.

    Args:
        model: The model.
        layers: The layers that are to be drawn.
        scale: As in ``apply_``.
    """
    names = rectified(model) if scale == "auto" else Rectified()
    raised = [layer for layer in layers if layer.name in names.all and is_untouched(layer)]
    passing = frozenset(layer.name for layer in raised if layer.name in names.linear and _may_pass(layer))
    notes = _notes(model, layers, len(raised)) if scale in ("auto", "keep") else []
    return Decision(frozenset(layer.name for layer in raised), passing, notes)


def _may_pass(layer: Layer) -> bool:
    """Whether a layer can return its inputs: its kernels have a middle, and it is neither stem nor depthwise."""
    odd = all(k % 2 for k in layer.size)
    return odd and not layer.first and not layer.is_depthwise and type(layer) is Layer


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
