"""Which layers keep their scale by default, and which take He's because no author chose theirs."""

from torch import nn

from dwp_init.authored import is_untouched
from dwp_init.chain import normalises, rectified
from dwp_init.draw import Scale
from dwp_init.layers import Layer

_MANY = 4  # layers with PyTorch's scale in a network that is deep enough to matter


def decide(model: nn.Module, layers: list[Layer], scale: Scale) -> tuple[frozenset[str], list[str]]:
    """Returns the names of the layers that take He's response with ``scale="auto"``, and notes for the report.

    The weights of these layers are from PyTorch's default distribution, which no author chose: in a chain of
    convolutions and ReLUs activations then shrink by about √6 a layer.

    Args:
        model: The model.
        layers: The layers that are to be drawn.
        scale: As in ``apply_``.
    """
    raised: frozenset[str] = frozenset()
    if scale == "auto":
        names = rectified(model)
        raised = frozenset(layer.name for layer in layers if layer.name in names and is_untouched(layer))
    return raised, _notes(model, layers, len(raised)) if scale in ("auto", "keep") else []


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
