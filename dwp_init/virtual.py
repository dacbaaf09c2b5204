"""Models whose weights have no values, to which ``torch.nn.init`` would do nothing either."""

from torch import nn

from dwp_init.convolutions import find_layers, named_convolutions
from dwp_init.names import Named
from dwp_init.plan import Plan, Skip
from dwp_init.selection import Layers, selector
from dwp_init.tensors import check_real, is_loading, is_virtual
from dwp_init.weights import weight_of


def plan_without_values(model: nn.Module, layers: Layers | None) -> Plan | None:
    """Returns the plan for a model to which ``torch.nn.init`` would do nothing either; otherwise ``None``.

    It takes no prior. The weights of such a model are on the meta device or FakeTensors, as where their values are to
    be loaded later, or transformers has just loaded them.

    Raises:
        ValueError: A pattern matches no convolution, or weights have values, but a draw in FakeTensorMode would not.
    """
    found = named_convolutions(model)
    waiting = set(filter(_waits, found))
    asked = selector(layers, model)[0] if waiting else None
    if asked is None or not any(map(asked, waiting)) or any(map(asked, set(found) - waiting)):
        check_real()
        return None
    everything = find_layers(model, asked)
    skipped = {layer.name: Skip(layer.reason or "not a convolution", layer.asked) for layer in everything}
    return Plan([layer for layer in everything if layer.is_convolution], [], skipped, [])


def _waits(named: Named) -> bool:
    return is_virtual(named.module) or any(map(is_loading, weight_of(named.module).tensors))
