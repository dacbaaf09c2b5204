"""Which layer of a model takes which prior, and why other layers are skipped."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from dwp_init.authored import is_untouched, reason_to_leave
from dwp_init.chain import Rectified, normalised, rectified, sole
from dwp_init.convolutions import find_layers
from dwp_init.layers import Layer
from dwp_init.passing import CopiesInARow, can_pass_on, passed_on, passes_on
from dwp_init.places import sharing
from dwp_init.report import IDENTITY, OWN_WEIGHTS, size_text
from dwp_init.resample import Fitting
from dwp_init.rules import Rule, limit_text, unused_priors, way_out
from dwp_init.selection import Layers, selector

NO_PRIOR = "no prior given fits"
"""The start of the reasons of layers that no prior fits."""


class Choice(NamedTuple):
    """A layer, the prior that it takes, and how the prior's kernels become those of the layer.

    Attributes:
        layer: The layer.
        rule: The prior.
        fitting: How the kernels change their size.
        may_pass: Whether the layer may pass its inputs on: its set of priors says so, and where it stands allows it.
        normalised: Whether it may because its outputs are normalised, at any scale.
        own: Whether the layer keeps its own kernels, and only their scale or its first channels change.
        raised: Whether it takes He's response by default.
        passing: Whether it passes its inputs on.
        unchanged: Whether an earlier call has left it as this one would.
    """

    layer: Layer
    rule: Rule
    fitting: Fitting
    may_pass: bool = False
    normalised: bool = False
    own: bool = False
    raised: bool = False
    passing: bool = False
    unchanged: bool = False

    @property
    def is_left(self) -> bool:
        """Whether the set of priors leaves the layer as it is, because its kernels are smaller than the prior's."""
        return self.rule.only_larger and self.fitting.is_reduced

    def is_drawn(self) -> bool:
        """Whether the weight looks as an earlier draw does that is not random in all of its channels."""
        if self.passes_on():
            return True
        prior = self.rule.prior_for(self.layer, self.layer.depth)
        return prior.drew(self.layer.filters(self.layer.weight.read()))

    def passes_on(self) -> bool:
        """Whether the layer may pass its inputs on, and does so."""
        return self.may_pass and passes_on(self.layer, exactly=not self.normalised)

    @property
    def draws(self) -> bool:
        """Whether kernels of the prior are drawn."""
        return not (self.own or (self.passing and self.passes_all))

    @property
    def prior_text(self) -> str:
        """Names the prior and what is done with its kernels, as in :class:`dwp_init.report.Drawn`."""
        if self.passing and self.passes_all:
            return IDENTITY
        copies = f"{passed_on(self.layer)} of {self.layer.shape[0]} channels identity" if self.passing else ""
        drawn = (OWN_WEIGHTS,) if self.own else (self.rule.name, str(self.fitting))
        return ", ".join(filter(None, (*drawn, copies)))

    @property
    def passes_all(self) -> bool:
        """Whether no output channel is left to draw if the layer passes its inputs on."""
        return passed_on(self.layer) == self.layer.shape[0]


class Skip(NamedTuple):
    """Why a layer is skipped, whether the caller wanted it, and whether a set leaves it, which has a prior for it."""

    reason: str
    wanted: bool = True
    kept: bool = False


@dataclass(frozen=True)
class Plan:
    """What ``apply_`` will do to a model.

    Attributes:
        convolutions: All convolutions of the model, in the order of its modules.
        choices: The layers that take a prior, in the same order.
        skipped: All other layers with parameters, by name.
        unused: Names of the priors that no layer takes.
        chain: The plain chain of the model, if the scale depends on that.
    """

    convolutions: list[Layer]
    choices: list[Choice]
    skipped: dict[str, Skip]
    unused: list[str]
    chain: Rectified = field(default_factory=Rectified)

    @property
    def layers(self) -> list[Layer]:
        """The layers that take a prior."""
        return [choice.layer for choice in self.choices]

    @property
    def kept(self) -> list[Layer]:
        """The layers that a set leaves as they are, though it has a prior for them."""
        kept = {name for name, skip in self.skipped.items() if skip.kept}
        return [layer for layer in self.convolutions if layer.name in kept]

    @property
    def reasons(self) -> dict[str, str]:
        """Why each of the other layers is skipped, by name."""
        return {name: skip.reason for name, skip in self.skipped.items()}

    @property
    def spatial(self) -> dict[str, int]:
        """Numbers of weights of the convolutions with kernels larger than 1×1 that the caller asked for, by name.

        A number is 0 if it is not known. Layers that share the weight of a drawn one are left out.
        """
        drawn = {choice.layer.place: choice.layer for choice in self.choices}
        asked = (layer for layer in self.convolutions if layer.is_spatial and layer.asked)
        return {layer.name: layer.weights for layer in asked if drawn.get(layer.place, layer) is layer}


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
    choices: dict[Layer, Choice] = {}
    skipped: dict[str, Skip] = {}
    left_by: list[Rule] = []
    exact = {layer for layer in found if not named.isdisjoint((layer.name, layer.path))}
    drawn = {layer.name for layer in found} if anywhere or scale != "auto" else sole(model)
    places, row = chain.between | norms, CopiesInARow()
    for layer in found:
        asked_for = layer in exact or layer.name in drawn
        choice = layer.reason or choice_for(layer, rules, resize, asked_for)
        if isinstance(choice, str):
            skipped[layer.name] = Skip(choice, layer.asked)
            continue
        others = near.get(layer, [])
        if choice.rule.dirac and all(each.name in places and can_pass_on(each) for each in (layer, *others)):
            choice = choice._replace(may_pass=True, normalised=layer.name in norms)
        if layer not in exact and (left := reason_to_leave(layer, others, choice.is_drawn)):
            skipped[layer.name] = Skip(left, wanted=False)
            continue
        wanted = choice if asked_for else _by_default(choice, rules)
        here = _decided(wanted, all(each.name in chain.all for each in (layer, *others)), row)
        if here is None:
            reason = choice.rule.reason_to_leave + limit_text(layer, rules)
            left_by.append(choice.rule)
            skipped[layer.name] = Skip(reason, wanted=False, kept=True)
        elif choices.keys().isdisjoint(others):
            choices[layer] = here
    taken = list(choices.values())
    unused = unused_priors(rules, [*left_by, *(choice.rule for choice in taken)])
    shared = _sharing(choices, near)
    return Plan([layer for layer in found if layer.is_convolution], taken, skipped | shared, unused, chain)


def _by_default(choice: Choice, rules: list[Rule]) -> Choice:
    """Returns the choice for a layer that neither its name nor the scale draws.

    If a set keeps its kernels, it may take a prior that is not of the same set and has its kernel size.
    """
    if not choice.rule.keeps:
        return choice
    others = [rule for rule in rules if rule.member_of is not choice.rule.member_of and not rule.keeps]
    found = choice_for(choice.layer, [rule for rule in others if rule.pattern == choice.rule.pattern], resize=False)
    return found if isinstance(found, Choice) else choice._replace(own=True)


def _decided(choice: Choice, inside: bool, row: CopiesInARow) -> Choice | None:
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


def choice_for(layer: Layer, rules: list[Rule], resize: bool, asked_for: bool = True) -> Choice | str:
    """Returns the prior that a layer takes, or the reason why there is none.

    Args:
        layer: The layer.
        rules: The priors.
        resize: Whether kernels are resampled.
        asked_for: Whether the layer takes its prior whatever the set says.
    """
    pattern = next((rule.pattern for rule in rules if layer.matches(rule.pattern)), None)
    rules = [rule for rule in rules if rule.pattern == pattern]
    near = [Choice(layer, rule, fitting) for rule in rules if (fitting := rule.fitting(layer))]
    choice = _take(near, resize)
    if choice is not None:
        return layer.weight.reason_to_refuse(layer.shape, layer.he_rms) or choice
    kind = f" {' or '.join(layer.kinds)}" if any(rule.kind for rule in rules) else ""
    if resizable := [choice for choice in near if not choice.is_left]:
        nearest = _nearest(resizable).rule
        scale = (
            f"with another scale than 'auto', as {nearest.given_as!r} leaves them, "
            if nearest.keeps and not asked_for
            else ""
        )
        hint = "" if resize else f"; {scale}resize=True would take {nearest.name}"
    else:
        left = f"; {near[0].rule.given_as!r} leaves those smaller than its own" if near else ""
        hint = left + way_out(layer, rules)
    return f"{NO_PRIOR} {size_text(layer.size)}{kind} kernels here{hint}{limit_text(layer, rules)}"


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
