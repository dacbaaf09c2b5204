"""The draw of one layer: kernels of its prior, arranged as its weight, and scaled."""

import copy
import hashlib
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dwp_init.layers import Layer
from dwp_init.options import check_flag, check_instance, check_one_of
from dwp_init.orthogonal import orthogonal_channels
from dwp_init.passing import pass_on_
from dwp_init.plan import Choice
from dwp_init.priors import Prior
from dwp_init.priors.precision import full_precision
from dwp_init.response import Strength, root_mean_square, strength
from dwp_init.tensors import wide_dtype
from dwp_init.text import few

LayerScale = Literal["keep", "fan_in", "prior"]
Scale = Literal["auto", "keep", "fan_in", "prior"]
HE_GAIN = math.sqrt(2)  # of a layer before a ReLU


@dataclass(frozen=True)
class Options:
    """How kernels are drawn; see ``apply_``.

    He's response, which ``"fan_in"`` gives a layer, is multiplied by ``gain / √2``. With ``"auto"`` some layers take
    it, see :class:`dwp_init.plan.Choice`, and all others keep theirs.
    """

    scale: Scale
    noise: bool
    orthogonal: bool | None
    seed: int | None
    generator: torch.Generator | None
    gain: float = HE_GAIN

    def __post_init__(self) -> None:
        check_one_of("scale", self.scale, get_args(Scale))
        check_flag("noise", self.noise)
        if self.orthogonal is not None:
            check_flag("orthogonal", self.orthogonal)
        if self.generator is not None:
            check_instance("generator", self.generator, torch.Generator, "torch.Generator")
            if self.seed is not None:
                raise ValueError(f"give seed={self.seed} or generator=..., not both")

    def scale_of(self, choice: Choice) -> LayerScale:
        """Returns what decides the scale of a layer."""
        if self.scale == "auto":
            return "fan_in" if choice.raised else "keep"
        return self.scale

    def source(self, layer: Layer) -> torch.Generator | None:
        """Returns the source of randomness for a layer; ``None`` for the global one."""
        if self.seed is None:
            return self.generator
        digest = hashlib.sha256(f"{self.seed}:{layer.name}".encode()).digest()
        return torch.Generator(layer.weight.device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def check_effect(choices: list[Choice], options: Options, kept: int = 0) -> None:
    """Raises ``ValueError`` if an option has no effect on any layer, or the generator is on another device.

    Args:
        choices: The layers that are initialised.
        options: The options.
        kept: Number of layers that a set leaves as they are, besides these.
    """
    drawn = [choice for choice in choices if choice.draws]
    if not options.noise and not any(choice.rule.prior.has_noise for choice in drawn):
        several = len({choice.rule.name for choice in drawn}) > 1
        names = few(sorted({choice.rule.given_as if several else choice.rule.name for choice in drawn}))
        reason = f"{names} has no noise step that could be left out" if drawn else "nothing is drawn"
        raise ValueError(f"noise=False has no effect: {reason}; remove it")
    if options.orthogonal is not None and all(choice.rule.prior.joint for choice in drawn):
        kept += sum(choice.own and choice.fits and not choice.passes_on() for choice in choices)
        stay = "layer that stays" if kept == 1 else "layers that stay"
        others = f", or give scale='keep', which draws {kept} {stay} here" if kept else ""
        names = few(sorted({choice.rule.name for choice in drawn}))
        reason = f"{names} draws filters together" if drawn else "nothing is drawn"
        raise ValueError(f"orthogonal={options.orthogonal} has no effect: {reason}; remove it{others}")
    if options.generator is None:
        return
    found = options.generator.device
    for layer in (choice.layer for choice in choices):
        device = layer.weight.device
        if (found.type, found.index or 0) != (device.type, device.index or 0):
            raise ValueError(
                f"generator is on {found}, but layer {layer.label!r} is on {device}; make one "
                f"with torch.Generator({str(device)!r}), or give seed="
            )


def makes_orthogonal(choice: Choice, options: Options) -> bool:
    """Whether the output channels of a layer are made orthogonal."""
    wanted = choice.rule.orthogonal if options.orthogonal is None else options.orthogonal
    return wanted and not choice.rule.prior.joint


def at_hand(prior: Prior, device: torch.device) -> Prior:
    """Returns a prior that draws on a device, in float32: a copy, unless it is as it should be."""
    if prior.training or any(
        (each.device, each.dtype) != (device, torch.float32) for each in prior.state_dict().values()
    ):
        return copy.deepcopy(prior).to(device, torch.float32).eval()
    return prior


def draw_weight(choice: Choice, prior: Prior, options: Options, before: Strength) -> tuple[Tensor, Strength]:
    """Draws the weight of a layer, and returns it with its strength before it is rounded to its dtype.

    Args:
        choice: The layer, and which of its priors it takes.
        prior: That prior at the layer's depth, from :func:`at_hand`.
        options: How to draw.
        before: Strength of the weight that is there.

    Raises:
        ValueError: The scale of the draw is not finite, or 0, or the dtype of the weight cannot hold it.
    """
    layer, dtype, scale = choice.layer, choice.layer.weight.dtype, options.scale_of(choice)
    he = layer.he_rms * (options.gain / HE_GAIN)
    kept = _kept(before, he)
    count = layer.shape.numel() // layer.size.numel() // prior.kernel_shape[0]
    orthogonal = makes_orthogonal(choice, options)
    with full_precision():
        kernels = choice.fitting(prior.sample_layer(count, options.source(layer), noise=options.noise))
        own = root_mean_square(kernels.to(dtype)) if scale == "prior" else 1.0
        _check(Strength(own, 1.0), choice)
        if orthogonal:
            try:
                kernels = orthogonal_channels(kernels, layer.blocks, layer.inputs)
            except RuntimeError:  # it has no decomposition
                _check(Strength(root_mean_square(kernels), 1.0), choice)
                raise
    weight = layer.arrange(kernels)
    found = layer.measure(weight)
    _check(found, choice)
    if scale == "prior" and not orthogonal:
        return _rounded(weight, dtype), found
    factor = {"keep": kept / found.response, "fan_in": he / found.response, "prior": own / found.rms}
    by = factor[scale]
    weight.mul_(by)
    if choice.passing:
        _pass_on_(weight, choice, kept)
        return _rounded(weight, dtype), layer.measure(weight)
    return _rounded(weight, dtype), Strength(found.rms * by, found.gain)


def _kept(before: Strength, he: float) -> float:
    """Returns the response that a layer keeps: that which it has, or He's if it has none."""
    return before.response if math.isfinite(before.response) and before.response > 0 else he


def _pass_on_(weight: Tensor, choice: Choice, kept: float) -> None:
    """Lets the first output channels pass the inputs on; where these are normalised, as strongly as all others.

    The layer keeps its response then.
    """
    layer = choice.layer
    filters, by = layer.filters(weight), _copying(choice, kept)
    pass_on_(filters, layer.groups, by)
    if choice.normalised:
        shift = kept / layer.measure(weight).response
        weight.mul_(shift)
        pass_on_(filters, layer.groups, _copying(choice, kept * shift))


def _copying(choice: Choice, response: float) -> float:
    """Returns the number by which copies of the inputs are multiplied, for a response of these where it may be any.

    It is not 1 then, also when rounded, so that the next call knows the copies from those of an author.
    """
    if not choice.normalised:
        return 1.0
    layer = choice.layer
    copied = torch.zeros(1, *layer.shape[1:])
    pass_on_(copied, 1)
    number = response / strength(copied, layer.correlations, layer.alike).response
    dtype = layer.weight.dtype
    return 1 + torch.finfo(dtype).eps if torch.tensor(number).to(dtype) == 1 else number


def weight_without_draws(choice: Choice, before: Strength) -> tuple[Tensor, Strength]:
    """Returns the new weight of a layer that takes no draws, and its strength before it is rounded to its dtype.

    Its kernels are its own, at He's response if it takes that. Where the layer passes its inputs on, the first output
    channels are copies of these, behind a normalisation at the response that the layer has; the others do not change.

    Args:
        choice: The layer.
        before: Strength of the weight that is there.

    Raises:
        ValueError: The dtype of the weight cannot hold its numbers.
    """
    layer, dtype = choice.layer, choice.layer.weight.dtype
    weight = layer.weight.read().to(wide_dtype(dtype), copy=True)
    if choice.raised:
        weight *= layer.he_rms / before.response
    if choice.passing:
        pass_on_(layer.filters(weight), layer.groups, _copying(choice, _kept(before, layer.he_rms)))
    return _rounded(weight, dtype), layer.measure(weight)


def _rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a weight in a dtype; raises ``ValueError`` if one of the numbers is too large for it."""
    limit = torch.finfo(dtype).max
    if limit < torch.finfo(torch.float32).max / 2 and (reached := weight.abs().max().item()) > limit:
        raise ValueError(f"the draw reaches {reached:.3g}, but {dtype} ends at {limit:.3g}; take another dtype")
    return weight.to(dtype)


def _check(found: Strength, choice: Choice) -> None:
    if not (math.isfinite(found.rms) and found.response > 0):
        raise ValueError(f"the prior {choice.rule.name!r} drew kernels of root mean square {found.rms}; fit it again")


def finite(after: Strength) -> Strength:
    """Returns the strength of a weight that was written; raises ``ValueError`` if the weight is not finite."""
    if not math.isfinite(after.rms):
        raise ValueError(f"its root mean square is {after.rms}, though the draw is finite; leave it out with layers=")
    return after


@contextmanager
def explained(layer: Layer, done: str, keep: type[Exception] | None = None) -> Generator[None, None, None]:
    """Adds the name of the layer to errors; those that are not of the class ``keep`` become a ``RuntimeError``."""
    try:
        yield
    except Exception as error:
        kind = keep if keep is not None and isinstance(error, keep) else RuntimeError
        raise kind(f"nothing was changed: layer {layer.label!r} could not be {done}: {error}") from error
