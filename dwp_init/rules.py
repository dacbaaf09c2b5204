"""Rules: which priors the caller gave, for which layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch

from dwp_init.access import Access
from dwp_init.layers import Kind, Layer, TransposedLayer
from dwp_init.priors import Prior
from dwp_init.registry import BUNDLED, load_with, registry
from dwp_init.report import kernel_text
from dwp_init.resample import Fitting, fitting
from dwp_init.sets import SETS, PriorSet, SetMember

_BUNDLED_IN_MEMORY = 16  # priors

PriorLike = SetMember | PriorSet
Priors = PriorLike | Iterable[PriorLike]
PriorsByPattern = Priors | Mapping[str, Priors]

_COLOURS = 3  # most input channels of a stem of images, for a set: four are often those of latents


@dataclass(frozen=True, eq=False)
class Rule:
    """A prior, and the layers that may take it.

    Attributes:
        pattern: Pattern of the names of these layers.
        prior: The prior.
        name: Name of the prior.
        kind: Kind of these layers, if the prior is part of a set, or if it is of depthwise kernels and no mapping names
            layers for it; otherwise layers of any kind may take it.
        member_of: The set.
    """

    pattern: str
    prior: Prior
    name: str
    kind: Kind | None = None
    member_of: PriorSet | None = None

    @property
    def size(self) -> torch.Size:
        """Size of the prior's kernels, such as ``(k, k)``."""
        return torch.Size(self.prior.kernel_shape[1:])

    @property
    def orthogonal(self) -> bool:
        """Whether output channels are made orthogonal by default."""
        return self.member_of is not None and self.member_of.makes_orthogonal(self.kind)

    @property
    def dirac(self) -> bool:
        """Whether the first channels of layers in plain chains pass their inputs on."""
        return self.member_of is not None and self.member_of.dirac

    @property
    def keeps(self) -> bool:
        """Whether layers keep their own kernels by default."""
        return self.member_of is not None and self.kind in self.member_of.kept

    @property
    def reason_to_leave(self) -> str:
        """Why layers keep their own kernels, and what draws them."""
        return (
            f"{self.given_as!r} leaves {self.kind} layers as they are on purpose; scale='keep' or an exact name in "
            "layers= draws them"
        )

    @property
    def only_larger(self) -> bool:
        """Whether kernels are resampled to larger sizes only."""
        return self.member_of is not None and self.kind in self.member_of.only_larger

    @property
    def given_as(self) -> str:
        """Name of what the caller gave: the set or the prior."""
        return self.member_of.name if self.member_of else self.name

    def fitting(self, layer: Layer) -> Fitting | None:
        """Returns how the prior's kernels become those of a layer; ``None`` if the layer may not take the prior."""
        if not layer.matches(self.pattern) or self.kind not in (None, *layer.kinds):
            return None
        prior = self.prior
        if prior.joint:
            is_stem = "stem" in layer.kinds and (self.kind is None or layer.inputs <= _COLOURS)
            is_stem = is_stem or (self.kind is None and self.pattern == layer.name)
            shaped = _shaped(prior, layer) if is_stem and not isinstance(layer, TransposedLayer) else None
            return fitting(shaped.kernel_shape[1:], layer.size) if shaped else None
        channels, *size = prior.kernel_shape
        # the channels of a stem are those of an image, such as red, green and blue
        fits = layer.inputs == channels if self.kind == "stem" else layer.inputs % channels == 0
        fits = fits and (self.kind != "stem" or len(_size_for(prior, layer)) == len(size))
        return fitting(size, layer.size) if fits else None

    def prior_for(self, layer: Layer, depth: float | None) -> Prior:
        """Returns the prior of a layer's kernels: that at its depth, unless it is ``None``, and of its shape."""
        if self.prior.joint:
            return _shaped(self.prior, layer) or self.prior
        return self.prior if depth is None else self.prior.at(depth)


def _shaped(prior: Prior, layer: Layer) -> Prior | None:
    """Returns a prior for the filters of a layer that reads images."""
    size = _size_for(prior, layer)
    return prior.shaped((layer.inputs, *size), layer.dilation[-len(size) :])


def _size_for(prior: Prior, layer: Layer) -> torch.Size:
    """Returns the size of a stem's kernels; of 1×k×k ones, which see one image of a video at a time, k×k.

    Kernels of k×1×k see no image, but a line of each of several.
    """
    one_image = len(prior.kernel_shape) == 3 and len(layer.size) == 3 and layer.size[0] == 1
    return layer.size[1:] if one_image else layer.size


def load_rules(prior: PriorsByPattern, access: Access) -> list[Rule]:
    """Loads the priors that the caller gave, in their order.

    Args:
        prior: The argument ``prior`` of ``apply_``.
        access: The options with which priors are loaded.

    Raises:
        TypeError: A prior or a pattern has a wrong type.
        ValueError: There is no prior, two priors are for the same layers, or there is a revision but not one prior.
    """
    by_pattern = {pattern: _as_list(given) for pattern, given in _as_mapping(prior).items()}
    named = isinstance(prior, Mapping)
    _check_revision(access.revision, [like for likes in by_pattern.values() for like in likes])
    rules: list[Rule] = []
    for pattern, likes in by_pattern.items():
        _check_pattern(pattern)
        added = [rule for like in likes for rule in _rules(pattern, like, access, named)]
        _check_clash(added)
        if not added:
            raise ValueError(f"prior gives no prior for the layers {pattern!r}; name one, such as 'notmnist-7x7'")
        rules += added
    if not rules:
        raise ValueError(f"prior is empty ({prior!r}); name at least one, such as 'notmnist-7x7'")
    return rules


def way_out(layer: Layer, rules: list[Rule]) -> str:
    """Says what would draw a layer that takes none of the priors of its pattern; empty if that is not known."""
    hints = [
        f"{rule.name!r} is for {rule.kind} layers; a mapping from patterns, or PriorSet(dense=(…,)), gives it to others"
        for rule in rules
        if rule.member_of is None and rule.kind not in (None, *layer.kinds) and rule.size == layer.size
    ]
    names = _registered_for(layer) - {rule.name for rule in rules}
    members = [like for _, like in SETS["natural"]]
    best = sorted(names, key=lambda name: (name not in members, not name.startswith("natural"), name))[:1]
    return "".join(f"; {hint}" for hint in [*hints, *(f"prior=[…, {name!r}] would draw them" for name in best)])


def limit_text(layer: Layer, rules: list[Rule]) -> str:
    """Says that a set gives a whitened stem few channels only, if that is why a layer does not take it."""
    limited = [
        rule
        for rule in rules
        if rule.prior.joint and rule.kind in layer.kinds and layer.inputs > _COLOURS and _shaped(rule.prior, layer)
    ]
    return "".join(
        f"; {rule.given_as!r} gives {rule.name!r} to stems of up to {_COLOURS} channels, not of {layer.inputs}: give "
        "it before the set, in a list, if these are of images"
        for rule in limited[:1]
    )


def _registered_for(layer: Layer) -> set[str]:
    """Returns the names of the registry's priors for kernels of a layer's size and kind; ``-dw`` marks depthwise."""
    shape = [1, *layer.size]
    return {
        name
        for name, entry in registry().items()
        if entry["kernel_shape"] == shape and ("-dw" in name) == layer.is_depthwise
    }


def unused_priors(rules: list[Rule], used: Iterable[Rule]) -> list[str]:
    """Returns the names of the priors that no layer took, and of the sets from which no layer took a prior."""
    used = set(used)
    sets = {(rule.pattern, id(rule.member_of)) for rule in used if rule.member_of}
    unused = [rule for rule in rules if rule not in used and (rule.pattern, id(rule.member_of)) not in sets]
    return list(dict.fromkeys(rule.given_as for rule in unused))


def _as_mapping(prior: PriorsByPattern) -> Mapping[str, Priors]:
    return cast(Mapping[str, Priors], prior) if isinstance(prior, Mapping) else {"*": prior}


def _as_list(priors: Priors) -> list[PriorLike]:
    if isinstance(priors, PriorLike):
        return [priors]
    _check_iterable(priors)
    return list(priors)


def _rules(pattern: str, like: PriorLike, access: Access, named: bool) -> list[Rule]:
    """Returns the rule of a prior, or those of a set of priors; ``named`` says whether a mapping names the layers."""
    chosen = SETS.get(like, like) if isinstance(like, str) else like
    if isinstance(chosen, PriorSet):
        return [Rule(pattern, *_loaded(prior, access), kind, chosen) for kind, prior in chosen]
    prior, name = _loaded(chosen, access)
    return [Rule(pattern, prior, name, None if named else _only_kind(prior))]


def _only_kind(prior: Prior) -> Kind | None:
    """Returns ``"depthwise"`` for a prior of depthwise kernels, which are unlike those of other layers."""
    source: object = prior.details.get("source")
    kind = cast(Mapping[str, object], source).get("kind") if isinstance(source, Mapping) else None
    return "depthwise" if kind == "depthwise" else None


def _loaded(given: SetMember, access: Access) -> tuple[Prior, str]:
    """Returns a prior and its name."""
    if isinstance(given, Prior):
        prior = given
    elif isinstance(given, str) and access.revision is None and (BUNDLED / given).is_dir() and given in registry():
        access.check_token()
        prior = _bundled(given, BUNDLED, *registry()[given]["sha256"].values())
    else:
        prior = load_with(given, access)
    return prior, str(prior.details.get("name") or type(prior).__name__)


@lru_cache(_BUNDLED_IN_MEMORY)
def _bundled(name: str, *contents: object) -> Prior:
    """Loads a prior of the package once for its contents; no caller of ``apply_`` gets hold of it, so it stays so."""
    return load_with(name, Access())


def _check_iterable(priors: object) -> None:
    if not isinstance(priors, Iterable):
        raise TypeError(
            f"a prior is a name, a folder, a Prior, several of those, or a mapping from patterns; got {priors!r}"
        )


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise TypeError(f"prior maps patterns of layer names, each a str, to priors; got the key {pattern!r}")


def _check_revision(revision: str | None, given: list[PriorLike]) -> None:
    if revision is not None and (len(given) != 1 or not isinstance(given[0], str) or given[0] in SETS):
        kinds = ["set" if isinstance(like, str) else type(like).__name__ for like in given]
        found = f"it is a {kinds[0]}" if len(given) == 1 else f"there are {len(given)}"
        raise ValueError(
            f"revision={revision!r} is for one prior given by name, but {found}; write user/name@revision for each"
        )


def _check_clash(rules: list[Rule]) -> None:
    taken: dict[tuple[Kind | None, tuple[int, ...]], str] = {}
    for rule in rules:
        shape, kind = rule.prior.kernel_shape, rule.kind
        if kind and not rule.member_of and (None, shape) in taken:
            raise ValueError(
                f"{taken[None, shape]!r} takes the {kernel_text(shape)} kernels of all layers, so that {rule.name!r}, "
                f"for {kind} layers, would draw none; give the latter first"
            )
        if (kind, shape) in taken:
            layers = f" of {kind} layers" if kind else ""
            raise ValueError(
                f"{taken[kind, shape]!r} and {rule.name!r} are both for {kernel_text(shape)} kernels{layers}; keep "
                "one, or give a mapping from layer-name patterns to priors"
            )
        taken[kind, shape] = rule.name
