"""`apply_`: choose the layers, draw their kernels, write them all or none."""

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dwp_init import layers as conv
from dwp_init.priors import Prior
from dwp_init.priors.base import whole_number
from dwp_init.registry import load_prior
from dwp_init.report import Drawn, Report, by_reason, size_text
from dwp_init.sets import SETS, PriorSet

PriorLike = str | Path | Prior | PriorSet
Priors = PriorLike | Iterable[PriorLike]
Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]
SCALES = ("fan_in", "prior")


def apply_(
    model: nn.Module,
    prior: Priors | Mapping[str, Priors],
    *,
    layers: Layers | None = None,
    scale: str = "fan_in",
    noise: bool = True,
    orthogonal: bool | None = None,
    resize: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    strict: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Report:
    """Draws the weights of a model's 2-D convolutions from learned priors, in place.

    Each k×k kernel of a ``Conv2d`` or ``ConvTranspose2d`` (any stride, padding, dilation, groups) is drawn
    independently (Eq. 5), on the device of its weight and in float32, then cast to the weight's dtype. A prior that
    differs by depth, such as :class:`dwp_init.MixtureByDepth`, takes a layer's place among the model's convolutions
    with kernels larger than 1×1, in the order of its modules, for that: 0 the first, 1 the last. Biases and all
    other parameters stay as they are. If anything fails, no weight has changed. A weight that is made from others is
    written through them: what ``weight_norm`` then gives is the draw, while ``spectral_norm`` and others without an
    exact inverse rescale it; the report tells the scale that results, under ``spectral_norm`` until its estimate is
    updated by the first forward passes in training.

    Patterns of layer names are shell patterns as in ``fnmatch``, case-sensitive; ``*`` crosses dots. A single layer
    may be the model; its name is ``""``.

    The default of ``scale`` rests on ``training/results/converge_mnist.csv``: there ``"fan_in"`` trains the paper's
    network faster than ``"prior"`` at every step measured. A dense VAE's draws without ``noise`` are
    level with those with it at first, and up to half a point ahead later.

    Args:
        model: The model; its mode, its ``Parameter`` objects and their ``requires_grad`` and memory format stay.
        prior: A prior's name, folder, repository on the Hugging Face Hub (``user/name@revision``) or object; a set of
            priors by kind of layer, by its name (``"natural"``) or as a :class:`dwp_init.PriorSet`; several of those,
            of which each layer takes the first of its kernel size; or a mapping from patterns of layer names
            (``"stem.*"``) to those, of which the first match counts.
        layers: Narrows the choice: a pattern, several, or a predicate of name and module.
        scale: ``"fan_in"`` rescales each layer's draw, by its own root mean square, to He's √(2 / fan_in), where a
            transposed convolution's fan-in is over the stride²; ``"prior"`` keeps the scale of the source networks.
        noise: ``False`` draws a VAE's decoder mean without the noise of p(w|z), as the paper's authors did, and of a
            kernel density the learned kernels themselves; other families have no such step, and it is an error.
        orthogonal: Whether output channels are made orthogonal within each group, before scaling: from each output
            channel's weights their mean is subtracted, and the nearest matrix with orthonormal rows
            ``(out, in · k · k)`` taken. Independent draws (Eq. 5) make the channels of a deep network more and more
            alike; these do not. Kernels stay much as they were drawn where a layer has many inputs, and become
            rougher, up to white noise, the more outputs it has for each input, as wide stems have. With one input
            channel per group, as in depthwise layers, kernels without their means are only scaled to one norm; with as
            many outputs as weights for each, or more, only the means go. By default as a set of priors says:
            ``"natural"`` does; elsewhere not.
        resize: Whether a layer of two-dimensional kernels of a size that no prior has takes the prior of the nearest
            size, its draws resampled bilinearly and kept at their root mean square.
        seed: Makes each layer's draw a function of the seed and of the layer's name alone, and leaves the global
            random state as it is. Another kind of device, or a wrapper that renames the layers, gives other numbers.
        generator: Source of randomness on the device of the weights, as in ``torch.nn.init``.
        strict: Whether a chosen convolution with a kernel larger than 1×1 that no prior fits, or a prior that no layer
            takes, is an error; of a set one that is taken is enough.
        dry_run: Whether to report only.
        revision: Of the one prior that is given by name or repository; for several, write ``user/name@revision``.
        cache_dir: This and the next three are as in :func:`dwp_init.load_prior`.
        token: See ``cache_dir``.
        local_files_only: See ``cache_dir``.
        endpoint: See ``cache_dir``.

    Returns:
        A report of the layers drawn and of those left alone, each with its reason.

    Raises:
        TypeError: ``model`` is no module, or another argument has a wrong type.
        ValueError: No layer fits, a pattern matches nothing, a prior is unknown or corrupt, a value is wrong or
            without effect, or a draw has no finite scale.
        RuntimeError: A layer could not be drawn or written; nothing was changed.
        FileNotFoundError: A prior's folder lacks one of its files.
        PriorError: A prior could not be had from the Hub; :func:`dwp_init.load_prior` names the kinds.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """
    seed = None if seed is None else whole_number(seed, "seed")
    flags = {"noise": noise, "resize": resize} | ({} if orthogonal is None else {"orthogonal": orthogonal})
    _check_arguments(model, scale, flags, seed, generator)
    hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only, "endpoint": endpoint}
    rules = _load_rules(prior, hub if revision is None else {"revision": revision, **hub})
    plan, left = _choose(model, rules, layers, resize)
    skipped = {name: skip.reason for name, skip in left.items()}
    unused = _unused(rules, plan)
    _check_choice(model, rules, plan, left, unused, strict)
    _check_effect(plan, noise, generator)
    before = [_rms(conv.read_weight(choice.module)) for choice in plan]
    after = (
        [None] * len(plan) if dry_run else _write(plan, _draw(plan, _How(scale, noise, orthogonal), seed, generator))
    )
    drawn = [
        Drawn(choice.layer, choice.kind, choice.prior_text, choice.depth, *scales)
        for choice, *scales in zip(plan, before, after, strict=True)
    ]
    return Report(drawn, skipped, unused, dry_run)


@dataclass(frozen=True, eq=False)
class _Rule:
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
class _Choice:
    """A layer, the shape of its weight, the prior that it takes, and how deep in the model it lies, from 0 to 1."""

    layer: str
    module: conv.Conv2d
    shape: torch.Size
    rule: _Rule
    depth: float

    @property
    def kind(self) -> str:
        return f"{type(self.module).__name__} {size_text(self.shape)}"

    @property
    def prior_text(self) -> str:
        same = self.rule.size == self.shape[2:]
        return self.rule.name if same else f"{self.rule.name}, resized from {size_text(self.rule.size)}"


class _How(NamedTuple):
    """The options of a draw."""

    scale: str
    noise: bool
    orthogonal: bool | None


class _Skip(NamedTuple):
    """Why a layer is left alone, and whether somebody asked for it."""

    reason: str
    wanted: bool = True


def _check_arguments(
    model: nn.Module,
    scale: str,
    flags: Mapping[str, bool],
    seed: int | None,
    generator: torch.Generator | None,
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}; got {scale!r}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {type(generator).__name__}")
    if seed is not None and generator is not None:
        raise ValueError(f"give seed={seed} or generator=..., not both")


def _load_rules(prior: Priors | Mapping[str, Priors], hub: Mapping[str, Any]) -> list[_Rule]:
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
    rules: list[_Rule] = []
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


def _rules(pattern: str, like: PriorLike, hub: Mapping[str, Any]) -> list[_Rule]:
    """Returns the rule of a prior, or those of a set of priors."""
    chosen = SETS.get(like, like) if isinstance(like, str) else like
    whole = chosen if isinstance(chosen, PriorSet) else None
    members = [(None, chosen)] if whole is None else whole
    rules = []
    for kind, one in members:
        loaded = one if isinstance(one, Prior) else load_prior(one, **hub)
        name = str(loaded.details.get("name") or type(loaded).__name__)
        rules.append(_Rule(pattern, loaded, name, kind, whole))
    return rules


def _check_clash(rules: list[_Rule]) -> None:
    taken: dict[tuple[str | None, tuple[int, ...]], str] = {}
    for rule in rules:
        size, kind = rule.prior.kernel_shape, f" of {rule.kind} layers" if rule.kind else ""
        if (rule.kind, size) in taken:
            raise ValueError(
                f"{taken[rule.kind, size]!r} and {rule.name!r} are both for {size_text(size)} kernels{kind}; keep one, "
                "or give a mapping from layer-name patterns to priors"
            )
        taken[rule.kind, size] = rule.name


def _unused(rules: list[_Rule], plan: list[_Choice]) -> list[str]:
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


def _choose(
    model: nn.Module, rules: list[_Rule], layers: Layers | None, resize: bool
) -> tuple[list[_Choice], dict[str, _Skip]]:
    modules = [(name, module) for name, module in model.named_modules() if _owns_weights(name, module)]
    chosen = _selector(layers, [name for name, module in modules if conv.is_convolution(module)])
    depths = _relative_depths(modules)
    plan: dict[tuple[conv.Span, ...], _Choice] = {}
    places: dict[str, tuple[conv.Span, ...]] = {}
    skipped: dict[str, _Skip] = {}
    for name, module in modules:
        reason = conv.reason_to_skip(module)
        if reason is None:
            places[name] = conv.place(module)
        if conv.is_convolution(module) and not chosen(name, module):
            skipped[name] = _Skip("not among the layers asked for", wanted=False)
            continue
        choice = _fit(name, module, rules, depths, resize) if reason is None else reason
        if isinstance(choice, str):
            skipped[name] = _Skip(choice)
        elif not any(conv.overlap(places[name], place) for place in plan):
            plan[places[name]] = choice
    return list(plan.values()), skipped | _sharing(plan, places)


def _relative_depths(modules: list[tuple[str, nn.Module]]) -> dict[str, float]:
    """Returns how deep each convolution with kernels larger than 1×1 lies: 0 for the model's first, 1 for its last."""
    spatial = [name for name, module in modules if conv.is_convolution(module) and math.prod(module.kernel_size) > 1]
    return {name: index / max(len(spatial) - 1, 1) for index, name in enumerate(spatial)}


def _fit(
    name: str, module: conv.Conv2d, rules: list[_Rule], depths: Mapping[str, float], resize: bool
) -> _Choice | str:
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
    return conv.reason_against_inverse(module) or _Choice(name, module, shape, rule, depths.get(name, 0.0))


def _take(rules: list[_Rule], shape: torch.Size, kinds: tuple[str, ...], resize: bool) -> _Rule | None:
    same = next((rule for rule in rules if rule.size == shape[2:]), None)
    return same or (_nearest(rules, shape, kinds) if resize else None)


def _nearest(rules: list[_Rule], shape: torch.Size, kinds: tuple[str, ...]) -> _Rule | None:
    """Returns the prior whose draws may be resampled to a layer's size, of the closest kind and size; none for 1×k."""

    def distance(rule: _Rule) -> tuple[int, float]:
        return kinds.index(rule.kind or kinds[0]), _size_apart(rule.size, shape[2:])

    return min((rule for rule in rules if min(*rule.size, *shape[2:]) > 1), key=distance, default=None)


def _kernels_text(shape: torch.Size, kinds: tuple[str, ...], rules: list[_Rule]) -> str:
    kind = f" {' or '.join(kinds)}" if any(rule.kind for rule in rules) else ""
    return f"{size_text(shape[2:])}{kind} kernels here"


def _size_apart(left: torch.Size, right: torch.Size) -> float:
    """Returns how far two kernel sizes are apart, as the factors between them."""
    return sum(abs(math.log(ours / theirs)) for ours, theirs in zip(left, right, strict=True))


def _sharing(plan: dict[tuple[conv.Span, ...], _Choice], places: dict[str, tuple[conv.Span, ...]]) -> dict[str, _Skip]:
    """Returns the layers that share a chosen layer's memory, asked for or not."""
    skipped, drawn = {}, {choice.layer for choice in plan.values()}
    for name in places:
        for place, choice in plan.items() if name not in drawn else ():
            owner = choice.layer or "(model)"
            if places[name] == place:
                skipped[name] = _Skip(f"shares the weight of {owner}", wanted=False)
            elif conv.overlap(places[name], place):
                skipped[name] = _Skip(f"shares part of the memory of {owner}, not all: give it a weight of its own")
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


def _check_choice(
    model: nn.Module,
    rules: list[_Rule],
    plan: list[_Choice],
    skipped: dict[str, _Skip],
    unused: list[str],
    strict: bool,
) -> None:
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


def _check_effect(plan: list[_Choice], noise: bool, generator: torch.Generator | None) -> None:
    if not noise and not any(choice.rule.prior.has_noise for choice in plan):
        names = ", ".join(sorted({choice.rule.name for choice in plan}))
        raise ValueError(f"noise=False has no effect: {names} has no noise step that could be left out; drop it")
    for choice in plan if generator is not None else ():
        device, found = conv.stored_tensors(choice.module)[-1].device, generator.device
        if (found.type, found.index or 0) != (device.type, device.index or 0):
            raise ValueError(
                f"generator is on {found}, but layer {choice.layer or '(model)'!r} is on {device}; make one "
                f"with torch.Generator({str(device)!r}), or give seed="
            )


def _draw(
    plan: list[_Choice], how: _How, seed: int | None, generator: torch.Generator | None
) -> list[tuple[str, Tensor, Tensor]]:
    """Returns layers' names, each with a stored tensor and its new value; changes nothing."""
    priors: dict[tuple[Prior, torch.device], Prior] = {}
    staged = []
    for choice in plan:
        stored = conv.stored_tensors(choice.module)
        device, dtype = stored[-1].device, stored[-1].dtype
        prior = choice.rule.prior.at(choice.depth)
        here = (prior, device)
        try:
            if here not in priors:
                priors[here] = copy.deepcopy(prior).to(device, torch.float32).eval()
            source = generator if seed is None else _seeded(device, seed, choice.layer)
            weight = _draw_weight(choice, priors[here], how, source, dtype)
            values = conv.values_to_store(choice.module, weight)
            conv.check_shapes(stored, values)
        except Exception as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f"nothing was changed: layer {choice.layer or '(model)'!r} could not be drawn: {error}"
            ) from error
        staged.extend((choice.layer, *pair) for pair in zip(stored, values, strict=True))
    return staged


def _draw_weight(
    choice: _Choice, prior: Prior, how: _How, generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    module, shape = choice.module, choice.shape
    count = shape.numel() // shape[2:].numel() // prior.kernel_shape[0]
    with torch.autocast(prior.device.type, enabled=False):
        kernels = prior.sample(count, generator, noise=how.noise)
        drawn = _checked_rms(kernels.to(dtype) if how.scale == "prior" else kernels, choice)
        if kernels.shape[2:] != shape[2:]:
            kernels = F.interpolate(kernels, tuple(shape[2:]), mode="bilinear", antialias=True)
        orthogonal = choice.rule.orthogonal if how.orthogonal is None else how.orthogonal
        if orthogonal:
            kernels = conv.orthogonal_channels(kernels, module.groups, conv.inputs_per_group(module, shape))
    weight = conv.arrange(module, kernels, shape)
    if how.scale == "prior" and not orthogonal and choice.rule.size == shape[2:]:
        return weight.to(dtype)
    wanted = conv.he_rms(module, shape) if how.scale == "fan_in" else drawn
    return (weight * (wanted / _checked_rms(weight, choice))).to(dtype)


def _checked_rms(weight: Tensor, choice: _Choice) -> float:
    found = _rms(weight)
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"the prior {choice.rule.name!r} drew kernels of root mean square {found}; fit it anew")
    return found


def _write(plan: list[_Choice], staged: list[tuple[str, Tensor, Tensor]]) -> list[float]:
    """Writes all values and returns the scales that they give, or puts everything back and raises."""
    old: list[tuple[Tensor, Tensor]] = []
    plain = [(choice.module, vars(choice.module)["weight"]) for choice in plan if "weight" in vars(choice.module)]
    scales: list[float] = []
    with torch.no_grad():
        try:
            while staged:
                layer, tensor, value = staged.pop()
                old.append((tensor, tensor.detach().clone(memory_format=torch.preserve_format)))
                tensor.copy_(value)
            for choice in plan:
                layer = choice.layer
                conv.refresh(choice.module)
                scales.append(_rms(conv.read_weight(choice.module)))
        except BaseException as error:
            for tensor, value in reversed(old):
                with suppress(Exception):  # the tensor that cannot be written was not
                    tensor.copy_(value)
            for module, weight in plain:
                module.weight = weight
            if not isinstance(error, Exception):
                raise
            raise RuntimeError(
                f"nothing was changed: layer {layer or '(model)'!r} could not be written: {error}"
            ) from error
    return scales


def _seeded(device: torch.device, seed: int, layer: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{layer}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _rms(weight: Tensor) -> float:
    return weight.float().square().mean().sqrt().item()


def _listed(names: Iterable[str]) -> str:
    shown = [name or "(model)" for name in names]
    more = [f"and {len(shown) - 5} more"] if len(shown) > 6 else []
    return ", ".join([*shown[:5], "…", *more] if more else shown) or "none"


def _there(pattern: str, names: Iterable[str]) -> str:
    """Says which layers there are, and which pattern may have been meant."""
    near = f"; did you mean {f'{pattern}.*'!r}?" if any(name.startswith(f"{pattern}.") for name in names) else ""
    return f"there are {_listed(names)}{near}"
