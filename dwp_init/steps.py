"""Which modules a module runs one after the other."""

import itertools
from collections.abc import Sequence
from types import FunctionType

from torch import nn

from dwp_init.attributes import is_called_as_usual, of_class, parts_of
from dwp_init.convolutions import is_convolution
from dwp_init.definition import is_current
from dwp_init.functional import Changed, Moved
from dwp_init.reading import steps_of_pass


class Seen:
    """What was found of the modules of a model, by their ``id``, and the functions that were read for it."""

    def __init__(self) -> None:
        self.steps: dict[int, list[nn.Module] | None] = {}
        self.read: set[FunctionType] = set()
        self._current: set[FunctionType] = set()

    def is_current(self) -> bool:
        """Whether the source that was read is that of the code."""
        self._current |= {function for function in self.read - self._current if is_current(function)}
        return self.read <= self._current


def chain_of(module: nn.Module, seen: Seen | None = None) -> list[nn.Module]:
    """Returns the modules that run one after the other from what a module takes to what it returns.

    Empty if that is not sure, or if they hold no convolution. Functions that no module stands for may only change
    numbers, before the first module and behind the last convolution: what moves them may return an image, which
    something else adds to what the module takes. They may also move numbers before the first module, if what the last
    convolution returns is made flat.

    Args:
        module: A module.
        seen: What was found before; it grows.
    """
    seen = seen or Seen()
    try:
        steps = _steps(module, seen) or []
    except RecursionError:
        return []
    first = list(itertools.takewhile(_is_function, steps))
    chain = steps[len(first) :]
    convolutions = [place for place, each in enumerate(chain) if is_convolution(each)]
    if not convolutions or any(map(_moves, chain)) or not _has_two_axes_where_it_must(chain):
        return []
    inside, behind = chain[: convolutions[-1]], chain[convolutions[-1] :]
    may_be_an_image = not any(isinstance(each, nn.Flatten) for each in behind)
    unsure = any(map(_is_function, inside)) or (may_be_an_image and any(map(_moves, first)))
    return [] if unsure or not seen.is_current() else chain


def runs_as_in_torch(module: nn.Module) -> bool:
    """Whether nothing of a module's forward pass is of another package, or of its own."""
    methods = ("forward", "_conv_forward", "__call__", "_call_impl", "_wrapped_call_impl")
    found = [each for name in methods for each in of_class(type(module), name)[:1]]
    of_torch = all(str(getattr(each, "__module__", "")).startswith("torch.nn.") for each in found)
    return of_torch and vars(module).keys().isdisjoint(methods)


def runs_in_order(module: nn.Module) -> bool:
    """Whether a module runs those inside it one after the other, and does nothing else."""
    usual = (of_class(type(module), name)[:1] == of_class(nn.Sequential, name)[:1] for name in ("forward", "__iter__"))
    return all(usual) and is_called_as_usual(module)


def runs_nothing(module: nn.Module) -> bool:
    """Whether a module has no forward pass, as lists of modules have none."""
    return of_class(type(module), "forward")[:1] == of_class(nn.Module, "forward")[:1]


def _steps(module: nn.Module, seen: Seen) -> list[nn.Module] | None:
    """Returns what runs one after the other, with all functions; ``None`` if it is not sure."""
    if id(module) not in seen.steps:
        seen.steps[id(module)] = None  # of a module that is inside itself
        seen.steps[id(module)] = _read(module, seen)
    return seen.steps[id(module)]


def _read(module: nn.Module, seen: Seen) -> list[nn.Module] | None:
    if not runs_as_in_torch(module):
        return steps_of_pass(module, lambda part: _steps(part, seen), seen.read)
    if not runs_in_order(module):
        inside = [name for name, _ in module.named_children() if name != "parametrizations"]
        return None if inside else [module]
    parts = [_steps(part, seen) if part is not None else None for part in parts_of(module).values()]
    sure = [part for part in parts if part is not None]
    return [each for part in sure for each in part] if len(sure) == len(parts) else None


def _is_function(module: nn.Module) -> bool:
    return isinstance(module, (Changed, Moved))


def _moves(module: nn.Module) -> bool:
    return isinstance(module, Moved)


def _has_two_axes_where_it_must(chain: Sequence[nn.Module]) -> bool:
    """Whether convolutions are of images, if there is pooling that stands for a mean or maximum over two axes."""
    pools = any(isinstance(each, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) for each in chain)
    return not pools or all(isinstance(each, (nn.Conv2d, nn.ConvTranspose2d)) for each in chain if is_convolution(each))
