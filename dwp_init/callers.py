"""Who calls ``apply_``: a warning if something calls it for each module of a model."""

import sys
import warnings
from types import FrameType

from torch import nn

from dwp_init.convolutions import is_convolution

_BY_MODULE = {  # functions that call another one for each module of a model: where they are defined, and their names
    "torch.nn.modules.module": ("apply",),
    "transformers.modeling_utils": ("_initialize_weights", "_init_weights"),
    "timm.models._manipulate": ("named_apply",),
}
_NEAR = 8  # calls between such a function and apply_, at most


def warn_if_by_module(model: nn.Module) -> None:
    """Warns if the caller was called by a function that goes through a larger model, and the model is a single layer.

    Args:
        model: What the caller, ``apply_``, is to initialise.
    """
    if not is_convolution(model):
        return
    walker = _walker(sys._getframe(2))
    if walker is None or walker.f_locals.get("self", walker.f_locals.get("module")) is model:
        return
    warnings.warn(
        f"{walker.f_code.co_name} calls apply_ for each layer alone, so each counts as a first layer, of depth 0, and "
        "with seed= layers of one shape get equal kernels; call apply_(model, ...) once with the whole model, or "
        "dwp_init.init.kernels_(layer.weight, ..., depth=...) for each layer",
        stacklevel=3,
    )


def _walker(frame: FrameType | None) -> FrameType | None:
    """Returns the outermost call of a function that goes through a model, near a frame; ``None`` if there is none."""
    walkers: list[FrameType] = []
    for _ in range(_NEAR):
        if frame is None:
            break
        if frame.f_code.co_name in _BY_MODULE.get(frame.f_globals.get("__name__", ""), ()):
            walkers.append(frame)
        frame = frame.f_back
    while walkers and (back := walkers[-1].f_back) is not None and back.f_code is walkers[-1].f_code:
        walkers[-1] = back  # the function calls itself for the modules within modules
    return walkers[-1] if walkers else None
