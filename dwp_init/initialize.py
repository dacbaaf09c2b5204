"""`apply_`: choose the layers, draw their kernels, write them all or none."""

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from dwp_init import layers as conv
from dwp_init.hub import load_prior
from dwp_init.priors import Prior
from dwp_init.report import Drawn, Report, by_reason

PriorLike = str | Path | Prior
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
    seed: int | None = None,
    generator: torch.Generator | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Report:
    """Draws the weights of a model's 2-D convolutions from learned priors, in place.

    Each k×k kernel of a ``Conv2d`` or ``ConvTranspose2d`` (any stride, padding, dilation, groups) is drawn
    independently (Eq. 5), on the device of its weight and in float32, then cast to the weight's dtype. Biases and all
    other parameters stay as they are. If anything fails, no weight has changed.

    Args:
        model: The model; its mode, its ``Parameter`` objects and their ``requires_grad`` and memory format stay.
        prior: A prior's name, folder or object; several of them, of which each layer takes the one of its kernel
            size; or a mapping from patterns of layer names (``"stem.*"``) to those, of which the first match counts.
        layers: Narrows the choice: a pattern, several, or a predicate of name and module.
        scale: ``"fan_in"`` rescales each layer's draw to He's root mean square √(2 / fan_in); ``"prior"`` keeps the
            scale of the source networks.
        noise: ``False`` draws a VAE's decoder mean without the noise of p(w|z), as the paper's authors did.
        seed: Makes each layer's draw a function of the seed and of the layer's name alone, and leaves the global
            random state as it is.
        generator: Source of randomness on the device of the weights, as in ``torch.nn.init``.
        strict: Whether a chosen convolution with a kernel larger than 1×1 that no prior fits, or a prior that no layer
            takes, is an error.
        dry_run: Whether to report only.

    Returns:
        A report of the layers drawn and of those left alone, each with its reason.

    Raises:
        TypeError: ``model`` is no module, or another argument has a wrong type.
        ValueError: No layer fits, a pattern matches nothing, a prior is unknown or corrupt, or a value is wrong.

    Reference: Atanov et al., The Deep Weight Prior, ICLR 2019.
    """
    _check_arguments(model, scale, noise, seed, generator)
    rules = _load_rules(prior)
    plan, skipped = _choose(model, rules, layers)
    unused = [rule.name for rule in rules if rule not in {choice.rule for choice in plan}]
    _check_choice(model, rules, plan, skipped, unused, strict)
    before = [_rms(conv.read_weight(choice.module)) for choice in plan]
    if not dry_run:
        staged = _draw(plan, scale, noise, seed, generator)
        _write(staged)
        for choice in plan:
            conv.refresh(choice.module)
    after = [None if dry_run else _rms(conv.read_weight(choice.module)) for choice in plan]
    drawn = [
        Drawn(choice.layer, choice.kind, choice.rule.name, *scales)
        for choice, *scales in zip(plan, before, after, strict=True)
    ]
    return Report(drawn, skipped, unused, dry_run)


@dataclass(frozen=True, eq=False)
class _Rule:
    """A prior, and the pattern of the layers that may take it."""

    pattern: str
    prior: Prior
    name: str

    def fits(self, module: conv.Conv2d) -> bool:
        channels, *size = self.prior.kernel_shape
        same_size = tuple(size) == tuple(conv.weight_shape(module)[2:])
        return same_size and conv.inputs_per_group(module) % channels == 0


@dataclass(frozen=True)
class _Choice:
    """A layer and the prior that it takes."""

    layer: str
    module: conv.Conv2d
    rule: _Rule

    @property
    def kind(self) -> str:
        return f"{type(self.module).__name__} {_size(conv.weight_shape(self.module))}"


def _check_arguments(
    model: nn.Module, scale: str, noise: bool, seed: int | None, generator: torch.Generator | None
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}; got {scale!r}")
    if not isinstance(noise, bool):
        raise TypeError(f"noise must be True or False; got {noise!r}")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed must be an int; got {seed!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {type(generator).__name__}")
    if seed is not None and generator is not None:
        raise ValueError(f"give seed={seed} or generator=..., not both")


def _load_rules(prior: Priors | Mapping[str, Priors]) -> list[_Rule]:
    by_pattern = prior if isinstance(prior, Mapping) else {"*": prior}
    rules: list[_Rule] = []
    for pattern, likes in by_pattern.items():
        if not isinstance(pattern, str):
            raise TypeError(f"prior maps patterns of layer names, each a str, to priors; got the key {pattern!r}")
        taken: dict[tuple[int, ...], str] = {}
        for like in [likes] if isinstance(likes, (str, Path, Prior)) else _as_list(likes):
            loaded = like if isinstance(like, Prior) else load_prior(like)
            name = str(loaded.details.get("name") or type(loaded).__name__)
            size = loaded.kernel_shape
            if size in taken:
                raise ValueError(
                    f"{taken[size]!r} and {name!r} are both for {_size(size[1:])} kernels; keep one, or give a mapping "
                    "from layer-name patterns to priors"
                )
            taken[size] = name
            rules.append(_Rule(pattern, loaded, name))
        if not taken:
            raise ValueError(f"prior gives no prior for the layers {pattern!r}; name one, such as 'notmnist-7x7'")
    if not rules:
        raise ValueError(f"prior is empty ({prior!r}); name at least one, such as 'notmnist-7x7'")
    return rules


def _as_list(priors: object) -> list[PriorLike]:
    if not isinstance(priors, Iterable):
        raise TypeError(
            f"a prior is a name, a folder, a Prior, several of those, or a mapping from patterns; got {priors!r}"
        )
    return list(priors)


def _choose(model: nn.Module, rules: list[_Rule], layers: Layers | None) -> tuple[list[_Choice], dict[str, str]]:
    modules = [(name, module) for name, module in model.named_modules() if _owns_weights(name, module)]
    chosen = _selector(layers, [name for name, module in modules if conv.is_convolution(module)])
    plan: dict[object, _Choice] = {}
    places, skipped = {}, {}
    for name, module in modules:
        reason, rule = conv.reason_to_skip(module), None
        if reason is None:
            places[name] = conv.place(module)
            rule = next((r for r in rules if _matches(name, r.pattern) and r.fits(module)), None)
            if rule is None:
                reason = f"no prior given fits {_size(conv.weight_shape(module)[2:])} kernels here"
        if conv.is_convolution(module) and not chosen(name, module):
            reason = "not among the layers asked for"
        if reason is None:
            plan.setdefault(places[name], _Choice(name, module, rule))
        else:
            skipped[name] = reason
    for name, place in places.items():
        if place in plan and plan[place].layer != name:
            skipped[name] = f"shares the weight of {plan[place].layer or '(model)'}"
    return list(plan.values()), skipped


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
            raise ValueError(f"layers={pattern!r} matches no convolution; there are {_listed(names)}")
    return lambda name, module: any(_matches(name, pattern) for pattern in patterns)


def _check_choice(
    model: nn.Module, rules: list[_Rule], plan: list[_Choice], skipped: dict[str, str], unused: list[str], strict: bool
) -> None:
    convolutions = {name: module for name, module in model.named_modules() if conv.is_convolution(module)}
    for rule in rules if convolutions else ():
        if not any(_matches(name, rule.pattern) for name in convolutions):
            there = _listed(convolutions)
            raise ValueError(f"the pattern {rule.pattern!r} of prior= matches no convolution; there are {there}")
    if not plan:
        needs = " or ".join(f"{_size(rule.prior.kernel_shape[1:])} kernels, as {rule.name!r} needs" for rule in rules)
        sizes: dict[str, int] = {}
        for module in convolutions.values():
            sizes[_size(module.kernel_size)] = sizes.get(_size(module.kernel_size), 0) + 1
        there = ", ".join(f"{size} ({count} layers)" for size, count in sizes.items()) or "no convolution"
        reasons = by_reason({name: skipped[name] for name in convolutions})
        raise ValueError(
            "; ".join([f"no layer can be initialised: none has {needs}", f"the model has {there}", *reasons])
        )
    if strict:
        left = [name for name, module in convolutions.items() if name in skipped and math.prod(module.kernel_size) > 1]
        left = [name for name in left if not skipped[name].startswith(("not among", "shares the weight"))]
        if left or unused:
            parts = by_reason({name: skipped[name] for name in left}) + [f"no layer took {name!r}" for name in unused]
            raise ValueError(f"strict: {'; '.join(parts)}; add a prior, narrow layers=, or leave strict off")


def _draw(
    plan: list[_Choice], scale: str, noise: bool, seed: int | None, generator: torch.Generator | None
) -> list[tuple[str, Tensor, Tensor]]:
    """Returns layers' names, each with a stored tensor and its new value; changes nothing."""
    priors: dict[tuple[Prior, torch.device], Prior] = {}
    staged = []
    for choice in plan:
        stored = conv.stored_tensors(choice.module)
        device, dtype = stored[-1].device, stored[-1].dtype
        here = (choice.rule.prior, device)
        try:
            if here not in priors:
                priors[here] = copy.deepcopy(choice.rule.prior).to(device, torch.float32).eval()
            source = generator if seed is None else _seeded(device, seed, choice.layer)
            weight = _draw_weight(choice, priors[here], scale, noise, source, dtype)
            values = conv.values_to_store(choice.module, weight)
            _check_shapes(stored, values)
        except Exception as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f"nothing was changed: layer {choice.layer or '(model)'!r} could not be drawn: {error}"
            ) from error
        staged.extend((choice.layer, *pair) for pair in zip(stored, values, strict=True))
    return staged


def _draw_weight(
    choice: _Choice, prior: Prior, scale: str, noise: bool, generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    count = math.prod(conv.weight_shape(choice.module)) // prior.dim
    with torch.autocast(prior.device.type, enabled=False):
        kernels = prior.sample(count, generator, noise=noise)
    weight = conv.arrange(choice.module, kernels)
    weight = weight.to(dtype) if scale == "prior" else weight
    rms = _rms(weight)
    if not (math.isfinite(rms) and rms > 0):
        raise ValueError(f"the prior {choice.rule.name!r} drew kernels of root mean square {rms}; fit it anew")
    return weight.mul_(conv.he_rms(choice.module) / rms).to(dtype) if scale == "fan_in" else weight


def _check_shapes(stored: list[Tensor], values: list[Tensor]) -> None:
    found, needed = ([tuple(tensor.shape) for tensor in tensors] for tensors in (values, stored))
    if found != needed:
        raise ValueError(f"its right_inverse returns shapes {found}, but the stored tensors have {needed}; mend it")


def _write(staged: list[tuple[str, Tensor, Tensor]]) -> None:
    """Writes all values, or puts the old ones back and raises."""
    old: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        try:
            while staged:
                layer, tensor, value = staged.pop()
                old.append((tensor, tensor.detach().clone(memory_format=torch.preserve_format)))
                tensor.copy_(value)
        except BaseException as error:
            for tensor, value in reversed(old):
                with suppress(RuntimeError):  # the tensor that cannot be written was not
                    tensor.copy_(value)
            if not isinstance(error, Exception):
                raise
            raise RuntimeError(
                f"nothing was changed: layer {layer or '(model)'!r} could not be written: {error}"
            ) from error


def _seeded(device: torch.device, seed: int, layer: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{layer}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _rms(weight: Tensor) -> float:
    return weight.float().square().mean().sqrt().item()


def _size(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "(model)" for name in names) or "none"
