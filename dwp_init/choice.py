"""Which layer of a model takes which prior, and why other layers are skipped."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn

from dwp_init.authored import reason_to_leave
from dwp_init.chain import Rectified, normalised, rectified, sole
from dwp_init.convolutions import find_layers
from dwp_init.layers import Layer
from dwp_init.passing import CopiesInARow, can_pass_on
from dwp_init.places import sharing
from dwp_init.plan import Choice, Plan, Skip
from dwp_init.report import size_text
from dwp_init.rescaling import decided, rescaled
from dwp_init.rules import Rule, limit_text, unused_priors, way_out
from dwp_init.selection import Layers, selector

NO_PRIOR = "no prior given fits"
"""The start of the reasons of layers that no prior fits."""


def choose(
    model: nn.Module, rules: list[Rule], layers: Layers | None, resize: bool, scale: str, anywhere: bool = False
) -> Plan:
    """Chooses a prior for each layer, or finds the reason why it takes none; see ``apply_`` for the arguments.

    With ``anywhere``, or another scale than ``"auto"``, layers take their priors whatever the set says.
    """
    asked, named = selector(layers, model)
    found = find_layers(model, asked)
    chain, norms = (rectified(model), normalised(model)) if scale == "auto" else (Rectified(), frozenset[str]())
    near = sharing((layer, layer.place) for layer in found)
    exact = {layer.name for layer in found if not named.isdisjoint((layer.name, layer.path))}
    drawn = {layer.name for layer in found} if anywhere or scale != "auto" else exact | sole(model)
    choosing = _Choosing(rules, resize, exact, drawn, chain, norms)
    choices: dict[Layer, Choice] = {}
    skipped: dict[str, Skip] = {}
    for layer in found:
        others = near.get(layer, [])
        here = choosing.of(layer, others)
        if isinstance(here, Skip):
            skipped[layer.name] = here
        elif choices.keys().isdisjoint(others):
            choices[layer] = here
    taken = list(choices.values())
    left_by = (skip.rule for skip in skipped.values() if skip.rule)
    unused = unused_priors(rules, [*left_by, *(choice.rule for choice in taken if choice.fits)])
    shared = _sharing(choices, near)
    return Plan([layer for layer in found if layer.is_convolution], taken, skipped | shared, unused, chain)


@dataclass(frozen=True)
class _Choosing:
    """What is known of a model and of the call before its layers are looked at, one by one and in their order.

    Attributes:
        rules: The priors.
        resize: Whether kernels are resampled.
        exact: Layers whose exact names the caller gave, by name.
        drawn: Layers that take their priors whatever the set says, by name.
        chain: The plain chain of the model.
        norms: Layers of plain chains that batch normalisation follows, by name.
        row: The layers so far.
    """

    rules: list[Rule]
    resize: bool
    exact: set[str]
    drawn: Collection[str]
    chain: Rectified
    norms: frozenset[str]
    row: CopiesInARow = field(default_factory=CopiesInARow)

    def of(self, layer: Layer, others: list[Layer]) -> Choice | Skip:
        """Returns what becomes of a layer, which shares memory with others."""
        inside = all(each.name in self.chain.all for each in (layer, *others))
        asked_for, exact = layer.name in self.drawn, layer.name in self.exact
        choice = layer.reason or choice_for(layer, self.rules, self.resize, asked_for)
        if isinstance(choice, str):
            stays = layer.reason or asked_for or not inside
            here = None if stays else rescaled(layer, others, _matching(layer, self.rules))
            return here or Skip(choice, layer.asked)
        places = self.chain.between | self.norms
        if choice.rule.dirac and all(each.name in places and can_pass_on(each) for each in (layer, *others)):
            choice = choice._replace(may_pass=True, normalised=layer.name in self.norms)
        if not exact and (left := reason_to_leave(layer, others, choice.is_drawn)):
            return Skip(left, wanted=False)
        here = decided(choice if asked_for else _by_default(choice, self.rules), inside, self.row)
        reason = choice.rule.reason_to_leave + limit_text(layer, self.rules)
        return here or Skip(reason, wanted=False, rule=choice.rule)


def _by_default(choice: Choice, rules: list[Rule]) -> Choice:
    """Returns the choice for a layer that neither its name nor the scale draws.

    If a set keeps its kernels, it may take a prior that is not of the same set and has its kernel size.
    """
    if not choice.rule.keeps:
        return choice
    others = [rule for rule in rules if rule.member_of is not choice.rule.member_of and not rule.keeps]
    found = choice_for(choice.layer, [rule for rule in others if rule.pattern == choice.rule.pattern], resize=False)
    return found if isinstance(found, Choice) else choice._replace(own=True)


def choice_for(layer: Layer, rules: list[Rule], resize: bool, asked_for: bool = True) -> Choice | str:
    """Returns the prior that a layer takes, or the reason why there is none.

    Args:
        layer: The layer.
        rules: The priors.
        resize: Whether kernels are resampled.
        asked_for: Whether the layer takes its prior whatever the set says.
    """
    rules = _matching(layer, rules)
    near = [Choice(layer, rule, fitting) for rule in rules if (fitting := rule.fitting(layer))]
    choice = _take(near, resize)
    if choice is not None:
        return layer.weight.reason_to_refuse(layer.shape, layer.he_rms) or choice
    kind = f" {' or '.join(layer.kinds)}" if any(rule.kind for rule in rules) else ""
    if resizable := [choice for choice in near if not choice.is_left]:
        nearest = _nearest(resizable).rule
        scale = "scale='keep', " if nearest.keeps and not asked_for else ""
        left = f", as {nearest.given_as!r} leaves them by default" * bool(scale)
        hint = "" if resize else f"; {scale}resize=True would take {nearest.name}{left}"
    else:
        left = f"; {near[0].rule.given_as!r} leaves those smaller than its own" if near else ""
        hint = left + way_out(layer, rules)
    return f"{NO_PRIOR} {size_text(layer.size)}{kind} kernels here{hint}{limit_text(layer, rules)}"


def _matching(layer: Layer, rules: list[Rule]) -> list[Rule]:
    """Returns the rules of the first pattern that matches a layer."""
    pattern = next((rule.pattern for rule in rules if layer.matches(rule.pattern)), None)
    return [rule for rule in rules if rule.pattern == pattern]


def _take(near: list[Choice], resize: bool) -> Choice | None:
    """Returns the first prior of the layer's size, or else the first one whose middle row it takes, or the nearest."""
    whole = [choice for choice in near if not choice.fitting.is_resized]
    same = [choice for choice in whole if not choice.fitting.is_sliced]
    resizable = [choice for choice in near if resize and not choice.is_left]
    return next(iter(same + whole), None) or (_nearest(resizable) if resizable else None)


def _nearest(near: list[Choice]) -> Choice:
    """Returns the prior of the closest kind and size."""

    def distance(choice: Choice) -> tuple[int, float]:
        kind = choice.rule.kind
        return choice.layer.kinds.index(kind) if kind else 0, choice.fitting.distance

    return min(near, key=distance)


def _sharing(choices: Collection[Layer], near: dict[Layer, list[Layer]]) -> dict[str, Skip]:
    """Returns the layers that share memory with a layer that is drawn, whether the caller wants them drawn or not."""
    skipped: dict[str, Skip] = {}
    for layer, others in near.items():
        for owner in others if layer not in choices else ():
            if owner in choices and layer.place == owner.place:
                skipped[layer.name] = Skip(f"shares the weight of {owner.label}", wanted=False)
            elif owner in choices:
                reason = f"shares part of the memory of {owner.label}, not all: give it a weight of its own"
                skipped[layer.name] = Skip(reason)
    return skipped
