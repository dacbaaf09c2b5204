"""Which layer of a model takes which prior, and why other layers are skipped."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from torch import nn

from dwp_init.authored import is_untouched, reason_to_leave
from dwp_init.chain import Rectified, normalised, rectified, sole
from dwp_init.convolutions import find_layers, named_convolutions
from dwp_init.layers import Layer
from dwp_init.names import Named
from dwp_init.passing import CopiesInARow, can_pass_on, passed_on, passes_on
from dwp_init.places import sharing
from dwp_init.report import IDENTITY, OWN_WEIGHTS, size_text, there_text
from dwp_init.resample import Fitting
from dwp_init.rules import Rule, limit_text, unused_priors, way_out
from dwp_init.tensors import check_real, is_loading, is_virtual
from dwp_init.weights import weight_of

NO_PRIOR = "no prior given fits"
"""The start of the reasons of layers that no prior fits."""

Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]


class Choice(NamedTuple):
    """A layer, the prior that it takes, and how the prior's kernels become those of the layer.

    Attributes:
        layer: The layer.
        rule: The prior.
        fitting: How the kernels change their size.
        may_pass: Whether the layer may pass its inputs on: its set of priors says so, and where it stands allows it.
        normalised: Whether it may because its outputs are normalised, at any scale.
        own: Whether the layer keeps its own kernels, and only their scale or its first channels change.
    """

    layer: Layer
    rule: Rule
    fitting: Fitting
    may_pass: bool = False
    normalised: bool = False
    own: bool = False

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

    def prior_text(self, passing: bool = False) -> str:
        """Names the prior and what is done with its kernels, as in :class:`dwp_init.report.Drawn`."""
        if passing and self.passes_all:
            return IDENTITY
        copies = f"{passed_on(self.layer)} of {self.layer.shape[0]} channels identity" if passing else ""
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
    asked, named = _selector(layers, model)
    found = find_layers(model, asked)
    chain, norms = (rectified(model), normalised(model)) if scale == "auto" else (Rectified(), frozenset[str]())
    near = sharing((layer, layer.place) for layer in found)
    choices: dict[Layer, Choice] = {}
    skipped: dict[str, Skip] = {}
    left_by: list[Rule] = []
    exact = {layer for layer in found if not named.isdisjoint((layer.name, layer.path))}
    drawn = {layer.name for layer in found} if anywhere or scale != "auto" else sole(model)
    row = CopiesInARow()
    for layer in found:
        choice = layer.reason or choice_for(layer, rules, resize)
        if isinstance(choice, str):
            skipped[layer.name] = Skip(choice, layer.asked)
            continue
        if choice.rule.dirac and layer.name in chain.between | norms and can_pass_on(layer):
            choice = choice._replace(may_pass=True, normalised=layer.name in norms)
        others = near.get(layer, [])
        if layer not in exact and (left := reason_to_leave(layer, others, choice.is_drawn)):
            skipped[layer.name] = Skip(left, wanted=False)
            continue
        choice = choice._replace(may_pass=row.allows(choice.may_pass, choice.normalised and choice.passes_all))
        here = choice if layer in exact or layer.name in drawn else _by_default(choice, rules, chain)
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


def _by_default(choice: Choice, rules: list[Rule], chain: Rectified) -> Choice | None:
    """Returns what becomes of a layer that neither its name nor the scale draws; ``None`` if it stays as it is.

    A layer that a set leaves may take a prior that is not of the same set and has its kernel size. Otherwise it keeps
    its own kernels: its scale changes in a chain without normalisation, and in any chain it may pass its inputs on.
    """
    if not choice.rule.keeps:
        return choice
    others = [rule for rule in rules if rule.member_of is not choice.rule.member_of and not rule.keeps]
    found = choice_for(choice.layer, [rule for rule in others if rule.pattern == choice.rule.pattern], resize=False)
    if isinstance(found, Choice):
        return found
    layer = choice.layer
    copied, scaled = choice.normalised and choice.may_pass, layer.name in chain.all
    response = layer.measure(layer.weight.read()).response if copied or scaled else math.nan
    new = scaled and (is_untouched(layer) or choice.passes_on() or layer.is_at_he(response))
    return choice._replace(own=True) if new or (copied and math.isfinite(response)) else None


def plan_without_values(model: nn.Module, layers: Layers | None) -> Plan | None:
    """Returns the plan for a model to which ``torch.nn.init`` would do nothing either; otherwise ``None``.

    It takes no prior. The weights of such a model are on the meta device or FakeTensors, as where their values are to
    be loaded later, or transformers has just loaded them.

    Raises:
        ValueError: A pattern matches no convolution, or weights have values, but a draw in FakeTensorMode would not.
    """
    found = named_convolutions(model)
    waiting = set(filter(_waits, found))
    asked = _selector(layers, model)[0] if waiting else None
    if asked is None or not any(map(asked, waiting)) or any(map(asked, set(found) - waiting)):
        check_real()
        return None
    everything = find_layers(model, asked)
    skipped = {layer.name: Skip(layer.reason or "not a convolution", layer.asked) for layer in everything}
    return Plan([layer for layer in everything if layer.is_convolution], [], skipped, [])


def _waits(named: Named) -> bool:
    return is_virtual(named.module) or any(map(is_loading, weight_of(named.module).tensors))


def choice_for(layer: Layer, rules: list[Rule], resize: bool) -> Choice | str:
    """Returns the prior that a layer takes, or the reason why there is none."""
    pattern = next((rule.pattern for rule in rules if layer.matches(rule.pattern)), None)
    rules = [rule for rule in rules if rule.pattern == pattern]
    near = [Choice(layer, rule, fitting) for rule in rules if (fitting := rule.fitting(layer))]
    choice = _take(near, resize)
    if choice is not None:
        return layer.weight.reason_to_refuse(layer.shape, layer.he_rms) or choice
    kind = f" {' or '.join(layer.kinds)}" if any(rule.kind for rule in rules) else ""
    if resizable := [choice for choice in near if not choice.is_left]:
        hint = "" if resize else f"; resize=True would take {_nearest(resizable).rule.name}"
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


def _selector(layers: Layers | None, model: nn.Module) -> tuple[Callable[[Named], bool], set[str]]:
    """Returns the argument ``layers`` of ``apply_`` as a predicate, and the exact names in it."""
    if layers is None:
        return lambda named: True, set()
    if callable(layers) and not isinstance(layers, (nn.Module, type)):
        return lambda named: layers(named.name, named.module), set()
    patterns = _patterns(layers)
    found = named_convolutions(model)
    for pattern in patterns:
        if not any(named.matches(pattern) for named in found):
            there = there_text(pattern, [named.name for named in found])
            raise ValueError(f"layers={pattern!r} matches no convolution; {there}")
    return lambda named: any(map(named.matches, patterns)), set(patterns)


def reusable(layers: Layers | None) -> Layers | None:
    """Returns the argument ``layers`` of ``apply_`` such that it can be read more than once, also an iterator."""
    return layers if layers is None or isinstance(layers, str) or callable(layers) else _patterns(layers)


def _patterns(layers: object) -> list[str]:
    expected = "layers is a pattern, several, or a predicate of name and module"
    if isinstance(layers, nn.Module):
        raise TypeError(f"{expected}; got a {type(layers).__name__}: give its name, as in layers='layer1.*'")
    if not isinstance(layers, Iterable):
        raise TypeError(f"{expected}; got {layers!r}")
    patterns = [layers] if isinstance(layers, str) else list(cast(Iterable[object], layers))
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{expected}; got {pattern!r} in it")
    return cast(list[str], patterns)
