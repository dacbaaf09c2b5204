"""`apply_`: draw the kernels of the layers chosen, write them all or none."""

import copy
import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dwp_init import layers as conv
from dwp_init.choice import Choice, Layers, Priors, check_choice, choose, load_rules, unused_priors
from dwp_init.priors import Prior
from dwp_init.priors.base import whole_number
from dwp_init.report import Drawn, Report

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
    rules = load_rules(prior, hub if revision is None else {"revision": revision, **hub})
    plan, left = choose(model, rules, layers, resize)
    skipped = {name: skip.reason for name, skip in left.items()}
    unused = unused_priors(rules, plan)
    check_choice(model, rules, plan, left, unused, strict)
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


class _How(NamedTuple):
    """The options of a draw."""

    scale: str
    noise: bool
    orthogonal: bool | None


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


def _check_effect(plan: list[Choice], noise: bool, generator: torch.Generator | None) -> None:
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
    plan: list[Choice], how: _How, seed: int | None, generator: torch.Generator | None
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
    choice: Choice, prior: Prior, how: _How, generator: torch.Generator | None, dtype: torch.dtype
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


def _checked_rms(weight: Tensor, choice: Choice) -> float:
    found = _rms(weight)
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"the prior {choice.rule.name!r} drew kernels of root mean square {found}; fit it anew")
    return found


def _write(plan: list[Choice], staged: list[tuple[str, Tensor, Tensor]]) -> list[float]:
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
