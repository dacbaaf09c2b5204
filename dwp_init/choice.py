"""Which layer of a model takes which prior, and why the rest take none."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dwp_init import layers as conv
from dwp_init.priors import Prior
from dwp_init.registry import load_prior
from dwp_init.report import by_reason, size_text
from dwp_init.sets import SETS, PriorSet

PriorLike = str | Path | Prior | PriorSet
Priors = PriorLike | Iterable[PriorLike]
Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, eq=False)
class Rule:
    """A prior, and the layers that may take it: the pattern of their names and, of a set, their kind."""

    pattern: str
    prior: Prior
    name: str
    kind: str | None = None
    member_of: PriorSet | None = None

    @property
    def size(self) -> torch.Size:
        return torch.Size(self.prior.kernel_shape[1:])

    @property
    def orthogonal(self) -> bool:
        return self.member_of is not None and self.member_of.orthogonal

    def fits_but_for_size(self, module: conv.Conv2d, shape: torch.Size, kinds: tuple[str, ...]) -> bool:
        inputs, channels = conv.inputs_per_group(module, shape), self.prior.kernel_shape[0]
        if self.kind == "stem":  # its channels are those of an image, red, green and blue
            return self.kind in kinds and inputs == channels
        return (self.kind is None or self.kind in kinds) and inputs % channels == 0


@dataclass(frozen=True)
class Choice:
    """A layer, the shape of its weight, the prior that it takes, and how deep in the model it lies, from 0 to 1."""

    layer: str
    module: conv.Conv2d
    shape: torch.Size
    rule: Rule
    depth: float

    @property
    def kind(self) -> str:
        return f"{type(self.module).__name__} {size_text(self.shape)}"

    @property
    def prior_text(self) -> str:
        same = self.rule.size == self.shape[2:]
        return self.rule.name if same else f"{self.rule.name}, resized from {size_text(self.rule.size)}"


class Skip(NamedTuple):
    """Why a layer is left alone, and whether somebody asked for it."""

    reason: str
    wanted: bool = True


def load_rules(prior: Priors | Mapping[str, Priors], hub: Mapping[str, Any]) -> list[Rule]:
    """Loads the priors; ``hub`` holds the options of :func:`load_prior`."""
    by_pattern = {
        pattern: [likes] if isinstance(likes, PriorLike) else _as_list(likes)
        for pattern, likes in (prior if isinstance(prior, Mapping) else {"*": prior}).items()
    }
    given = [like for likes in by_pattern.values() for like in likes]
    if "revision" in hub and (len(given) != 1 or not isinstance(given[0], str) or given[0] in SETS):
        raise ValueError(
            f"revision={hub['revision']!r} is for one prior given by name; there are {len(given)}, or it is an object "
            "or a set: write user/name@revision for each"
        )
    rules: list[Rule] = []
    for pattern, likes in by_pattern.items():
        if not isinstance(pattern, str):
            raise TypeError(f"prior maps patterns of layer names, each a str, to priors; got the key {pattern!r}")
        added = [rule for like in likes for rule in _rules(pattern, like, hub)]
        _check_clash(added)
        if not added:
            raise ValueError(f"prior gives no prior for the layers {pattern!r}; name one, such as 'notmnist-7x7'")
        rules += added
    if not rules:
        raise ValueError(f"prior is empty ({prior!r}); name at least one, such as 'notmnist-7x7'")
    return rules


def _rules(pattern: str, like: PriorLike, hub: Mapping[str, Any]) -> list[Rule]:
    """Returns the rule of a prior, or those of a set of priors."""
    chosen = SETS.get(like, like) if isinstance(like, str) else like
    whole = chosen if isinstance(chosen, PriorSet) else None
    members = [(None, chosen)] if whole is None else whole
    rules = []
    for kind, one in members:
        loaded = one if isinstance(one, Prior) else load_prior(one, **hub)
        name = str(loaded.details.get("name") or type(loaded).__name__)
        rules.append(Rule(pattern, loaded, name, kind, whole))
    return rules


def _check_clash(rules: list[Rule]) -> None:
    taken: dict[tuple[str | None, tuple[int, ...]], str] = {}
    for rule in rules:
        size, kind = rule.prior.kernel_shape, f" of {rule.kind} layers" if rule.kind else ""
        if (rule.kind, size) in taken:
            raise ValueError(
                f"{taken[rule.kind, size]!r} and {rule.name!r} are both for {size_text(size)} kernels{kind}; keep one, "
                "or give a mapping from layer-name patterns to priors"
            )
        taken[rule.kind, size] = rule.name


def unused_priors(rules: list[Rule], plan: list[Choice]) -> list[str]:
    """Returns the names of the priors that no layer takes, and of the sets that no layer takes a prior of."""
    used = {choice.rule for choice in plan}
    sets = {(rule.pattern, id(rule.member_of)) for rule in used if rule.member_of}
    names = [
        rule.member_of.name if rule.member_of else rule.name
        for rule in rules
        if rule not in used and (rule.pattern, id(rule.member_of)) not in sets
    ]
    return list(dict.fromkeys(names))


def _as_list(priors: object) -> list[PriorLike]:
    if not isinstance(priors, Iterable):
        raise TypeError(
            f"a prior is a name, a folder, a Prior, several of those, or a mapping from patterns; got {priors!r}"
        )
    return list(priors)


def choose(
    model: nn.Module, rules: list[Rule], layers: Layers | None, resize: bool
) -> tuple[list[Choice], dict[str, Skip]]:
    """Returns the layers that take a prior, in the order of the modules, and the others by name with their reasons."""
    modules = [(name, module) for name, module in model.named_modules() if _owns_weights(name, module)]
    chosen = _selector(layers, [name for name, module in modules if conv.is_convolution(module)])
    depths = _relative_depths(modules)
    plan: dict[tuple[conv.Span, ...], Choice] = {}
    places: dict[str, tuple[conv.Span, ...]] = {}
    skipped: dict[str, Skip] = {}
    for name, module in modules:
        reason = conv.reason_to_skip(module)
        if reason is None:
            places[name] = conv.place(module)
        if conv.is_convolution(module) and not chosen(name, module):
            skipped[name] = Skip("not among the layers asked for", wanted=False)
            continue
        choice = _fit(name, module, rules, depths, resize) if reason is None else reason
        if isinstance(choice, str):
            skipped[name] = Skip(choice)
        elif not any(conv.overlap(places[name], place) for place in plan):
            plan[places[name]] = choice
    return list(plan.values()), skipped | _sharing(plan, places)


def _relative_depths(modules: list[tuple[str, nn.Module]]) -> dict[str, float]:
    """Returns how deep each convolution with kernels larger than 1×1 lies: 0 for the model's first, 1 for its last."""
    spatial = [name for name, module in modules if conv.is_convolution(module) and math.prod(module.kernel_size) > 1]
    return {name: index / max(len(spatial) - 1, 1) for index, name in enumerate(spatial)}


def _fit(name: str, module: conv.Conv2d, rules: list[Rule], depths: Mapping[str, float], resize: bool) -> Choice | str:
    """Returns the prior that a layer takes, or why there is none."""
    shape = conv.weight_shape(module)
    if reason := conv.reason_against_shape(shape):
        return reason
    kinds = conv.kinds(module, shape, first=depths.get(name) == 0)
    near = [rule for rule in rules if _matches(name, rule.pattern) and rule.fits_but_for_size(module, shape, kinds)]
    by_pattern = ([rule for rule in near if rule.pattern == each] for each in dict.fromkeys(r.pattern for r in near))
    rule = next(filter(None, (_take(given, shape, kinds, resize) for given in by_pattern)), None)
    if rule is None and not resize and (nearest := _nearest(near, shape, kinds)):
        return f"no prior given fits {_kernels_text(shape, kinds, rules)}; resize=True would take {nearest.name}"
    if rule is None:
        return f"no prior given fits {_kernels_text(shape, kinds, rules)}"
    return conv.reason_against_inverse(module) or Choice(name, module, shape, rule, depths.get(name, 0.0))


def _take(rules: list[Rule], shape: torch.Size, kinds: tuple[str, ...], resize: bool) -> Rule | None:
    same = next((rule for rule in rules if rule.size == shape[2:]), None)
    return same or (_nearest(rules, shape, kinds) if resize else None)


def _nearest(rules: list[Rule], shape: torch.Size, kinds: tuple[str, ...]) -> Rule | None:
    """Returns the prior whose draws may be resampled to a layer's size, of the closest kind and size; none for 1×k."""

    def distance(rule: Rule) -> tuple[int, float]:
        return kinds.index(rule.kind or kinds[0]), _size_apart(rule.size, shape[2:])

    return min((rule for rule in rules if min(*rule.size, *shape[2:]) > 1), key=distance, default=None)


def _kernels_text(shape: torch.Size, kinds: tuple[str, ...], rules: list[Rule]) -> str:
    kind = f" {' or '.join(kinds)}" if any(rule.kind for rule in rules) else ""
    return f"{size_text(shape[2:])}{kind} kernels here"


def _size_apart(left: torch.Size, right: torch.Size) -> float:
    """Returns how far two kernel sizes are apart, as the factors between them."""
    return sum(abs(math.log(ours / theirs)) for ours, theirs in zip(left, right, strict=True))


def _sharing(plan: dict[tuple[conv.Span, ...], Choice], places: dict[str, tuple[conv.Span, ...]]) -> dict[str, Skip]:
    """Returns the layers that share a chosen layer's memory, asked for or not."""
    skipped, drawn = {}, {choice.layer for choice in plan.values()}
    for name in places:
        for place, choice in plan.items() if name not in drawn else ():
            owner = choice.layer or "(model)"
            if places[name] == place:
                skipped[name] = Skip(f"shares the weight of {owner}", wanted=False)
            elif conv.overlap(places[name], place):
                skipped[name] = Skip(f"shares part of the memory of {owner}, not all: give it a weight of its own")
    return skipped


def _owns_weights(name: str, module: nn.Module) -> bool:
    inside = "parametrizations" in name.split(".")  # what a parametrized weight is made of is no layer
    own = next(module.parameters(recurse=False), None) is not None or hasattr(module, "parametrizations")
    return conv.is_convolution(module) or (own and not inside)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _selector(layers: Layers | None, names: list[str]) -> Callable[[str, nn.Module], bool]:
    if layers is None:
        return lambda name, module: True
    if callable(layers) and not isinstance(layers, nn.Module):
        return layers
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers is a pattern, several, or a predicate of name and module; got {layers!r}")
    patterns = [layers] if isinstance(layers, str) else list(layers)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"layers is a pattern, several, or a predicate of name and module; got {pattern!r} in it")
        if not any(_matches(name, pattern) for name in names):
            raise ValueError(f"layers={pattern!r} matches no convolution; {_there(pattern, names)}")
    return lambda name, module: any(_matches(name, pattern) for pattern in patterns)


def check_choice(
    model: nn.Module,
    rules: list[Rule],
    plan: list[Choice],
    skipped: dict[str, Skip],
    unused: list[str],
    strict: bool,
) -> None:
    """Raises ``ValueError`` where a pattern matches nothing, no layer fits, or ``strict`` and one is left out."""
    convolutions = {name: module for name, module in model.named_modules() if conv.is_convolution(module)}
    for rule in rules if convolutions else ():
        if not any(_matches(name, rule.pattern) for name in convolutions):
            there = _there(rule.pattern, convolutions)
            raise ValueError(f"the pattern {rule.pattern!r} of prior= matches no convolution; {there}")
    if not plan:
        needs = " or ".join(
            f"{size_text(rule.prior.kernel_shape)} kernels{f' of a {rule.kind} layer' if rule.kind else ''}, as "
            f"{rule.name!r} needs"
            for rule in rules
        )
        sizes: dict[str, int] = {}
        for module in convolutions.values():
            sizes[size_text(module.kernel_size)] = sizes.get(size_text(module.kernel_size), 0) + 1
        counts = [f"{size} ({count} layer{'s' * (count > 1)})" for size, count in sizes.items()]
        there = ", ".join(counts) or "no convolution"
        reasons = by_reason({name: skipped[name].reason for name in convolutions})
        raise ValueError(
            "; ".join([f"no layer can be initialised: none has {needs}", f"the model has {there}", *reasons])
        )
    if strict:
        left = {name: skipped[name].reason for name in convolutions if name in skipped and skipped[name].wanted}
        left = {name: reason for name, reason in left.items() if math.prod(convolutions[name].kernel_size) > 1}
        if left or unused:
            parts = by_reason(left) + [f"no layer took {name!r}" for name in unused]
            raise ValueError(f"strict: {'; '.join(parts)}; add a prior, narrow layers=, or leave strict off")


def _listed(names: Iterable[str]) -> str:
    shown = [name or "(model)" for name in names]
    more = [f"and {len(shown) - 5} more"] if len(shown) > 6 else []
    return ", ".join([*shown[:5], "…", *more] if more else shown) or "none"


def _there(pattern: str, names: Iterable[str]) -> str:
    """Says which layers there are, and which pattern may have been meant."""
    near = f"; did you mean {f'{pattern}.*'!r}?" if any(name.startswith(f"{pattern}.") for name in names) else ""
    return f"there are {_listed(names)}{near}"
