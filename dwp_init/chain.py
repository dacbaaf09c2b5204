"""Plain chains: modules whose data flow is known without running them."""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils import parametrize

from dwp_init.bytecode import only_calls
from dwp_init.convolutions import is_convolution, named_convolutions
from dwp_init.modules import counts
from dwp_init.names import Named, modules_by_path, named_modules
from dwp_init.resolution import reduces
from dwp_init.steps import Seen, chain_of, runs_as_in_torch, runs_in_order, runs_nothing

_LINEAR_ABOVE_0 = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU)
_RECTIFIERS = (*_LINEAR_ABOVE_0, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
_BETWEEN = ("pooling", "dropout", "padding")  # modules of torch.nn that may be between a layer and its rectifier
_LITTLE = 0.01  # share of what is below 0 that a rectifier may leave, as LeakyReLU does by default


class Rectified(NamedTuple):
    """Names of convolutions of a plain chain.

    Attributes:
        all: All that a rectifier follows, wherever they are used.
        between: Those that stand between two rectifiers, of which the second returns the outputs of the first as they
            are: two ReLUs, or two ReLU6, but neither a ReLU behind a GELU nor a ReLU6 behind a ReLU.
        hooked: Names of modules of the chain whose hooks may change what passes through it. Then the others are empty.
    """

    all: frozenset[str] = frozenset()
    between: frozenset[str] = frozenset()
    hooked: tuple[str, ...] = ()


def rectified(model: nn.Module) -> Rectified:
    """Returns the names of the convolutions for which He's scale is right, as far as classes show that.

    These are the convolutions that a ReLU or a similar function follows, if all convolutions of the model are in one
    chain of modules of ``torch.nn``, none of which normalises: an ``nn.Sequential``, or a module whose own forward pass
    runs them one after the other, see :func:`dwp_init.steps.chain_of`. A module that does something else may
    hide a residual connection; then there are none. So may a module around the chain, unless its forward pass calls the
    chain as one, and the chain returns more channels than it takes, at a lower resolution: networks that upscale or
    restore images add what a chain returns to an image, also several times over. That is asked of a chain with a
    forward pass of its own too, because it may be a part of a larger model, which adds to it; of an ``nn.Sequential``
    that is the whole model it is asked that channels or resolution change. Nor are there any if a hook may change what
    passes through the chain, which no class shows.
    """
    found = named_convolutions(model)
    if len(found) < 2:
        return Rectified()
    path = _smallest(model)
    chain = chain_of(modules_by_path(model)[path])
    if {id(named.module) for named in found} - {id(module) for module in chain} or any(map(normalises, chain)):
        return Rectified()
    modules = list(named_modules(model))
    around = [each.module for each in _around(modules, path)]
    if not _runs_as_one(modules, path) or _may_be_added_to_its_inputs([*around, modules_by_path(model)[path]], chain):
        return Rectified()
    names = {id(named.module): named.name for named in found}
    seen = _rectified(chain, names)
    hooked = _hooked(modules, path) or tuple(type(each).__name__ for each in chain if _is_hooked(each))
    if hooked and seen.all:
        return Rectified(hooked=hooked)
    return seen


def normalised(model: nn.Module) -> frozenset[str]:
    """Returns the names of the convolutions of plain chains that batch normalisation follows, as far as classes show.

    All convolutions of the model are then in chains, as those of :func:`rectified`, without hooks, whose parent is one
    module, which calls them as one: a chain, or several of which each takes as many channels as the one before
    returns, as they would not if they ran side by side. The last returns more channels than the first takes, and each
    chain that is meant does so too, at a lower resolution, so that nothing adds its outputs to its inputs. No
    convolution is used twice.
    """
    names = _names(model)
    return frozenset(name for chain in _growing(model) for name in _before_norms(chain, names))


def sole(model: nn.Module) -> frozenset[str]:
    """Returns the name of the convolution of a model that has one, if all modules around it run in order."""
    found = named_convolutions(model)
    if len(found) != 1:
        return frozenset()
    around = _around(list(named_modules(model)), found[0].path)
    return frozenset(named.name for named in found if all(runs_in_order(each.module) for each in around))


def _names(model: nn.Module) -> dict[int, str]:
    return {id(named.module): named.name for named in named_convolutions(model)}


def _growing(model: nn.Module) -> list[list[nn.Module]]:
    """Returns the chains whose outputs nothing adds to their inputs, if all convolutions of the model are in chains.

    There are none if one of several chains returns as many channels as it takes, at the same resolution: it may be the
    branch of a residual connection.
    """
    chains = _chains(model)
    if len(chains) > 1 and any(len({*_channels(chain)}) == 1 and not reduces(chain) for _, chain in chains):
        return []
    used = [id(module) for _, chain in chains for module in chain if is_convolution(module)]
    paths = Counter(id(module) for module in modules_by_path(model).values())
    if list(_names(model)) != used or any(paths[each] > 1 for each in used):  # each once, in the order of modules
        return []
    if len({path.rpartition(".")[0] for path, _ in chains}) != 1 or not _link(
        [_channels(chain) for _, chain in chains]
    ):
        return []
    modules = list(named_modules(model))
    if any(_hooked(modules, path) or any(map(_is_hooked, chain)) for path, chain in chains):
        return []
    if not all(_runs_as_one(modules, path) for path, _ in chains):
        return []
    return [chain for _, chain in chains if _link([_channels(chain)]) and reduces(chain)]


def _chains(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """Returns the largest chains of a model that hold convolutions, with their paths, in the order of its modules.

    Modules with forward passes of their own count in the smallest module that holds all convolutions: what those around
    it do besides does not matter.
    """
    found: dict[str, list[nn.Module]] = {}
    smallest, seen = _smallest(model), Seen()
    for path, module in modules_by_path(model).items():
        may_be = runs_in_order(module) or (_within(path, smallest) and not runs_as_in_torch(module))
        if may_be and not any(_within(path, outer) for outer in found) and (chain := chain_of(module, seen)):
            found[path] = chain
    return list(found.items())


def _link(channels: Sequence[tuple[float, float]]) -> bool:
    """Whether chains that take and return so many channels may run one after the other, and return more in the end."""
    pairs = itertools.pairwise(channels)
    return channels[-1][1] > channels[0][0] and all(before[1] == behind[0] for before, behind in pairs)


def _before_norms(chain: Sequence[nn.Module], names: dict[int, str]) -> list[str]:
    """Returns which modules of a chain, those with names by their ``id``, batch normalisation follows."""
    places = [(names[id(each)], place) for place, each in enumerate(chain) if id(each) in names]
    return [name for name, place in places if isinstance(_next(chain[place + 1 :]), _BatchNorm)]


def _rectified(chain: Sequence[nn.Module], names: dict[int, str]) -> Rectified:
    """Returns which modules of a chain, those with names by their ``id``, a rectifier follows."""
    places = [(names[id(each)], place) for place, each in enumerate(chain) if id(each) in names]
    behind = [_rectifier(chain[place + 1 :]) for _, place in places]
    before = [_rectifier(reversed(chain[:place])) for _, place in places]
    bare = {name for (name, _), each in zip(places, behind, strict=True) if each is None}
    changed = {name for (name, _), *pair in zip(places, behind, before, strict=True) if not _returns(*pair)}
    everywhere = frozenset(name for name, _ in places)  # a module that is used more than once has several places
    return Rectified(everywhere - bare, everywhere - changed)


def normalises(module: nn.Module) -> bool:
    """Whether a module normalises activations, by the name of its class; a norm of weights does not."""
    kind = type(module).__name__
    return re.search("Norm(?!al)", kind) is not None and kind not in ("_WeightNorm", "_SpectralNorm")


def _smallest(model: nn.Module) -> str:
    """Returns the path of the smallest module with a forward pass that holds all convolutions, as no list has."""
    levels = zip(*(named.path.split(".")[:-1] for named in named_convolutions(model)), strict=False)
    shared = [level[0] for level in itertools.takewhile(lambda level: len({*level}) == 1, levels)]
    modules = modules_by_path(model)
    while shared and runs_nothing(modules[".".join(shared)]):
        shared.pop()
    return ".".join(shared)


def _channels(chain: Sequence[nn.Module]) -> tuple[float, float]:
    """Returns how many channels a chain takes and returns; 0 and 1 where this is not known."""
    convolutions = [place for place, module in enumerate(chain) if counts(module, "in_channels", "out_channels")]
    if not convolutions:
        return 0, 1
    first, last = convolutions[0], convolutions[-1]
    inputs = counts(chain[first], "in_channels")[0] / _shuffled(chain[:first])
    return inputs, counts(chain[last], "out_channels")[0] * _shuffled(chain[last + 1 :])


def _may_be_added_to_its_inputs(around: Sequence[nn.Module], chain: Sequence[nn.Module]) -> bool:
    """Whether something around a chain may add its outputs to its inputs, as far as its channels and sizes tell.

    That is a module that decides, if there are no more channels than before, or the resolution is that of before; or,
    where there is none, one outside of the model, if channels and resolution are those of before. ``around`` ends with
    the module that is the chain: one with a forward pass of its own decides too.
    """
    inputs, outputs = _channels(chain)
    if all(map(runs_in_order, around)):
        return outputs == inputs and not reduces(chain)
    return outputs <= inputs or not reduces(chain)


def _runs_as_one(modules: Sequence[Named], path: str) -> bool:
    """Whether the module around a chain calls it as one, rather than its parts; so it is if there is none around."""
    holders = [each for each in _around(modules, path) if not runs_in_order(each.module)]
    if not holders:
        return True
    inside = path[len(holders[-1].path) :].removeprefix(".")
    return only_calls(holders[-1].module, inside.partition(".")[0])


def _around(modules: Sequence[Named], path: str) -> list[Named]:
    """Returns the modules that hold the one of a path, without it, from the outermost on."""
    return sorted((each for each in modules if each.path != path and _within(path, each.path)), key=_depth)


def _depth(named: Named) -> int:
    return len(named.path)


def _hooked(modules: Sequence[Named], path: str) -> tuple[str, ...]:
    """Returns the names of the modules at a path or inside it whose hooks may change what passes."""
    inside = {id(each) for around in modules if around.path == path for each in around.module.modules()}
    return tuple(each.name for each in modules if id(each.module) in inside and _is_hooked(each.module))


def _shuffled(modules: Sequence[nn.Module]) -> float:
    """Returns by which factor modules such as ``PixelShuffle`` change the number of channels."""
    down = math.prod(each.downscale_factor**2 for each in modules if isinstance(each, nn.PixelUnshuffle))
    return down / math.prod(each.upscale_factor**2 for each in modules if isinstance(each, nn.PixelShuffle))


def _within(path: str, outer: str) -> bool:
    """Whether a path is that of a module or of one inside it."""
    return not outer or f"{path}.".startswith(f"{outer}.")


def _is_hooked(module: nn.Module) -> bool:
    """Whether hooks may change what a module takes or returns; those of torch, as of ``weight_norm``, do not."""
    hooks = cast(dict[int, object], {**module._forward_hooks})  # pyright: ignore[reportPrivateUsage]
    hooks |= cast(dict[int, object], module._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
    return not all(map(_is_of_torch, hooks.values()))


def _is_of_torch(hook: object) -> bool:
    function = cast(Callable[..., object], hook.func) if isinstance(hook, functools.partial) else hook
    return str(getattr(function, "__module__", "")).startswith("torch.")


def _returns(rectifier: nn.Module | None, before: nn.Module | None) -> bool:
    """Whether a rectifier returns the outputs of another as they are, but for the little that is below 0."""
    if isinstance(before, nn.ReLU6):
        return isinstance(rectifier, (*_LINEAR_ABOVE_0, nn.ReLU6))
    leaks_little = isinstance(before, nn.LeakyReLU) and 0 <= before.negative_slope <= _LITTLE
    return (isinstance(before, nn.ReLU) or leaks_little) and isinstance(rectifier, _LINEAR_ABOVE_0)


def _rectifier(modules: Iterable[nn.Module]) -> nn.Module | None:
    """Returns the first of the modules next to a layer, apart from pooling and the like, if it is a rectifier."""
    found = _next(modules)
    return found if isinstance(found, _RECTIFIERS) else None


def _next(modules: Iterable[nn.Module]) -> nn.Module | None:
    """Returns the first of some modules that is neither pooling nor the like."""
    for module in modules:
        kind = parametrize.type_before_parametrizations(module)
        if not isinstance(module, nn.Identity) and kind.__module__.rpartition(".")[2] not in _BETWEEN:
            return module
    return None
