"""What becomes of a layer's scale and first channels by default, and of layers that keep their own kernels."""

import math

from dwp_init.authored import is_untouched, reason_to_leave
from dwp_init.layers import Layer
from dwp_init.passing import CopiesInARow
from dwp_init.plan import Choice
from dwp_init.resample import Fitting
from dwp_init.rules import Rule


def decided(choice: Choice, inside: bool, row: CopiesInARow) -> Choice | None:
    """Returns a choice with what becomes of the layer's scale and first channels; ``None`` if it stays as it is.

    Weights of PyTorch's default distribution, which no author chose, take He's response in a chain of convolutions and
    ReLUs, where activations shrink by about √6 a layer. Such layers pass their inputs on if they may, and so do those
    whose outputs are normalised, at any scale. A layer that does so already was drawn before.

    Args:
        choice: The choice.
        inside: Whether a rectifier follows the layer, and all that share its weight, in such a chain.
        row: The layers before it.
    """
    layer, copies = choice.layer, choice.passes_on()
    new = inside and is_untouched(layer)
    response = layer.measure(layer.weight.read()).response if choice.own and (inside or choice.may_pass) else math.nan
    known = math.isfinite(response) or not choice.own
    wanted = choice.may_pass and known and (choice.normalised or new or copies)
    allowed = row.allows(wanted, choice.normalised and choice.passes_all)
    passing = allowed or (choice.own and wanted and copies)
    if choice.own and not passing and not (inside and known and (new or layer.is_at_he(response))):
        return None
    drawn_before = copies and (choice.own or choice.passes_all) if passing else choice.own and not new
    raised = new or (passing and not choice.normalised)
    return choice._replace(raised=raised, passing=passing, unchanged=drawn_before)


def rescaled(layer: Layer, others: list[Layer], rules: list[Rule]) -> Choice | None:
    """Returns the choice for a layer of a chain without normalisation that no prior fits; ``None`` if it stays.

    A set that keeps kernels looks after the scale of a whole chain, and He's response needs no prior.
    """
    keeps = next((rule for rule in rules if rule.keeps), None)
    refused = layer.weight.reason_to_refuse(layer.shape, layer.he_rms)
    if keeps is None or refused or reason_to_leave(layer, others, is_drawn=lambda: False):
        return None
    choice = Choice(layer, keeps, Fitting(layer.size, layer.size), own=True, fits=False)
    return decided(choice, True, CopiesInARow())
