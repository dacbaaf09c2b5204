"""Kernels for one weight, in the manner of ``torch.nn.init``: for ``_init_weights``, and for layers of your own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dwp_init.access import Access
from dwp_init.choice import choice_for
from dwp_init.convolutions import layer_of
from dwp_init.draw import HE_GAIN, LayerScale, Options, at_hand, check_effect, draw_weight, explained
from dwp_init.options import check_flag, check_instance, check_one_of
from dwp_init.plan import Choice
from dwp_init.priors.checks import checked_depth, is_int, is_real, whole_number
from dwp_init.priors.precision import full_precision
from dwp_init.ranks import Ranks
from dwp_init.registry import registry
from dwp_init.response import Strength
from dwp_init.rules import Priors, Rule, load_rules
from dwp_init.sets import SETS
from dwp_init.tensors import is_loading

_MOST_CACHED = 16  # names of bundled priors and sets whose priors stay in memory
_UNKNOWN = Strength(math.nan, math.nan)
AnyTensor = TypeVar("AnyTensor", bound=Tensor)


@torch.no_grad()
def kernels_(
    weight: AnyTensor,
    prior: Priors,
    *,
    depth: float | None = None,
    groups: int = 1,
    transposed: bool = False,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    scale: LayerScale = "fan_in",
    gain: float = HE_GAIN,
    noise: bool = True,
    orthogonal: bool | None = None,
    resize: bool = False,
    generator: torch.Generator | None = None,
) -> AnyTensor:
    """Draws the weight of one convolution from a prior, in place.

    ``apply_`` knows the model, and with it the depth of each layer, what its author set up, and which layers of a plain
    chain pass their inputs on. Here the caller says which layer it is, and all of the weight is drawn or it is an
    error: also one that is zero or frozen, also channels that ``apply_`` would make copies of inputs, and also layers
    that a set would leave. As with ``torch.nn.init``, nothing happens to a weight on the meta
    device, or, while transformers loads a checkpoint, to one of it. The ranks of a ``DTensor`` draw the same weight.

    Args:
        weight: Weight ``(out, in/groups, *size)`` of a convolution with kernels of 1 to 3 axes, of any floating-point
            dtype and memory format; with ``transposed`` ``(in, out/groups, *size)``.
        prior: A prior or a set of priors as in ``apply_``: a name, a folder, a repository, an object, or several of
            these, of which the first one of the kernel size counts; one of depthwise kernels needs ``groups``, or
            ``PriorSet(dense=…)`` for other layers. Priors that are bundled are read once.
        depth: Relative depth of the layer: 0 for the first convolution with kernels larger than 1×1, 1 for the last.
            With 0 and one group it takes a prior for stems, if there is one. ``None`` draws from kernels of all depths.
        groups: Number of groups of channels.
        transposed: Whether the convolution is transposed.
        stride: Strides of the convolution. They matter only if it is transposed.
        dilation: Distance of neighbouring taps.
        scale: As in ``apply_``, but ``"fan_in"`` by default, because a new tensor has no scale to keep.
        gain: Gain of the nonlinearity that follows, as in ``torch.nn.init.calculate_gain``, for ``scale="fan_in"``:
            the response is that of a white weight of root mean square ``gain / √fan_in``. √2 is that of a ReLU; 1 is
            for layers without one, such as the last layer.
        noise: As in ``apply_``.
        orthogonal: As in ``apply_``.
        resize: As in ``apply_``.
        generator: Source of randomness on the device of the weight; PyTorch's global one by default.

    Returns:
        ``weight``.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: No prior fits, a prior is unknown or corrupt, a value is wrong or has no effect, or the scale of the
            draw is not finite.
        RuntimeError: The weight could not be drawn or written; it has not changed.
        FileNotFoundError: The folder of a prior lacks one of its files.
        PriorError: A prior could not be loaded from the Hub.

    Examples:
        >>> weight = torch.empty(64, 1, 7, 7)
        >>> dwp_init.init.kernels_(weight, "natural", depth=0.5, groups=64).shape
        torch.Size([64, 1, 7, 7])
    """
    check_instance("weight", weight, Tensor, "torch.Tensor")
    check_flag("resize", resize)
    check_one_of("scale", scale, get_args(LayerScale))
    options = Options(scale, noise, orthogonal, None, generator, _checked_gain(gain, scale))
    module = _Convolution(weight, groups, transposed, stride, dilation)
    depth = _checked_depth(depth)
    if weight.is_meta or isinstance(weight, FakeTensor) or is_loading(weight):
        return weight
    layer = layer_of(module, "weight", depth=depth or 0.0, first=depth == 0)
    choice = layer.reason or choice_for(layer, _rules(prior), resize)
    if not isinstance(choice, Choice):
        raise ValueError(f"no kernels for a weight of shape {tuple(weight.shape)}: {choice}")
    check_effect([choice], options)
    ranks = Ranks(module)
    seed, generator = ranks.source(None, generator)
    with ranks.together():
        _write(choice, replace(options, seed=seed, generator=generator), depth)
    return weight


@full_precision()
def _write(choice: Choice, options: Options, depth: float | None) -> None:
    """Draws the weight of a layer and writes it."""
    layer = choice.layer
    with explained(layer, "drawn", keep=ValueError):
        before = layer.measure(layer.weight.read()) if options.scale == "keep" else _UNKNOWN
        here = at_hand(choice.rule.prior_for(layer, depth), layer.weight.device)
        drawn, _ = draw_weight(choice, here, options, before)
        values = layer.weight.values_for(drawn)
    with explained(layer, "written"):
        layer.weight.write(values)


class _Convolution(nn.Module):
    """What ``apply_`` has to know of a convolution: its weight, and the attributes that say how it is used.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The arguments are not those of a convolution with such a weight.
    """

    def __init__(self, weight: Tensor, groups: int, transposed: bool, stride: object, dilation: object) -> None:
        super().__init__()
        shape = tuple(weight.shape)
        if not 3 <= len(shape) <= 5 or 0 in shape:
            raise ValueError(
                f"weight has shape {shape}; expected (out, in/groups, *size) with kernels of 1 to 3 axes, none empty"
            )
        check_flag("transposed", transposed)
        self.groups, self.transposed, self.kernel_size = whole_number(groups, "groups"), transposed, shape[2:]
        if self.groups < 1 or shape[0] % self.groups:
            raise ValueError(f"groups must divide the {shape[0]} channels of a weight {shape}; got {groups}")
        self.stride = _per_axis("stride", stride, len(self.kernel_size))
        self.dilation = _per_axis("dilation", dilation, len(self.kernel_size))
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)


def _per_axis(name: str, value: object, rank: int) -> tuple[int, ...]:
    """Returns a number for each axis of the kernels; raises unless they are whole and above 0."""
    values = tuple(cast(Sequence[object], value)) if isinstance(value, Sequence) else (value,) * rank
    numbers = [each for each in values if is_int(each) and each > 0]
    if len(values) != rank or len(numbers) != rank:
        raise ValueError(f"{name} must be a whole number above 0, or one for each of the {rank} axes; got {value!r}")
    return tuple(numbers)


def _checked_depth(depth: float | None) -> float | None:
    return None if depth is None else checked_depth(depth, "None or ")


def _checked_gain(gain: float, scale: LayerScale) -> float:
    if not (is_real(gain) and 0 < gain < math.inf):
        raise ValueError(f"gain must be a number above 0, such as 1 for a layer without a ReLU; got {gain!r}")
    if gain != HE_GAIN and scale != "fan_in":
        raise ValueError(f"gain={gain} has no effect with scale={scale!r}; remove it, or take scale='fan_in'")
    return float(gain)


def _rules(prior: Priors) -> list[Rule]:
    """Loads priors; those that are given by a name of the registry, whose files never change, only once."""
    if isinstance(prior, Mapping):
        raise TypeError("a mapping from patterns to priors is for the layers of a model: give it to apply_")
    if isinstance(prior, str) and (prior in SETS or prior in registry()):
        return list(_loaded(prior, *_contents(prior)))
    return load_rules(prior, Access())


@lru_cache(_MOST_CACHED)
def _loaded(name: str, *contents: object) -> tuple[Rule, ...]:
    """Loads the priors of a name with these contents; no caller gets hold of them, so they stay as they are."""
    return tuple(load_rules(name, Access()))


def _contents(name: str) -> Iterator[object]:
    """Yields what a name stands for: the members of a set, and the digests of files."""
    members: list[object] = [name]
    if name in SETS:
        yield SETS[name].orthogonal
        members = [like for _, like in SETS[name]]
        yield from members
    for member in members:
        yield from registry().get(str(member), {}).get("sha256", {}).values()
