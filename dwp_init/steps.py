"""Which modules a module runs one after the other."""

import itertools
from typing import cast

from torch import nn

from dwp_init.convolutions import is_convolution
from dwp_init.definition import is_current
from dwp_init.functional import Opaque
from dwp_init.reading import Read, is_called_as_usual, steps_of_pass


class Known:
    """What is known of the modules of a model by their ``id``, and of which functions that was read."""

    def __init__(self) -> None:
        self.steps: dict[int, list[nn.Module] | None] = {}
        self.read: Read = {}


def chain_of(module: nn.Module, known: Known | None = None) -> list[nn.Module]:
    """Returns the modules that run one after the other from what a module takes to what it returns.

    Empty if that is not sure, or if they hold no convolution. Functions that no module stands for may be before the
    first module, and behind the last convolution if there are pixels no more: in the end, an image may be returned
    which something else adds to what the module takes.

    Args:
        module: A module.
        known: What is known; it grows.
    """
    known = known or Known()
    steps = _steps(module, known) or []
    chain = steps[len(list(itertools.takewhile(_is_opaque, steps))) :]
    last = max((place for place, each in enumerate(chain) if is_convolution(each)), default=-1)
    behind = chain[last + 1 :]
    hidden = any(map(_is_opaque, behind)) and not any(map(_leaves_no_pixels, behind))
    if last < 0 or hidden or any(map(_is_opaque, chain[:last])):
        return []
    return chain if all(itertools.starmap(is_current, known.read.items())) else []


def runs_as_in_torch(module: nn.Module) -> bool:
    """Whether nothing of a module's forward pass is of another package, or of its own."""
    methods = ("forward", "_conv_forward", "__call__", "_call_impl", "_wrapped_call_impl")
    if not vars(module).keys().isdisjoint(methods):
        return False
    found = (getattr(type(module), name, None) for name in methods)
    return all(method is None or str(method.__module__).startswith("torch.nn.") for method in found)


def runs_in_order(module: nn.Module) -> bool:
    """Whether a module runs those inside it one after the other, and does nothing else."""
    return getattr(type(module), "forward", None) is nn.Sequential.forward and is_called_as_usual(module)


def _steps(module: nn.Module, known: Known) -> list[nn.Module] | None:
    """Returns what :func:`chain_of` does, with all functions; ``None`` if it is not sure."""
    if id(module) not in known.steps:
        known.steps[id(module)] = None  # of a module that is inside itself
        known.steps[id(module)] = _read(module, known)
    return known.steps[id(module)]


def _read(module: nn.Module, known: Known) -> list[nn.Module] | None:
    if not runs_as_in_torch(module):
        return steps_of_pass(module, lambda part: _steps(part, known), known.read)
    if not runs_in_order(module):
        inside = [name for name, _ in module.named_children() if name != "parametrizations"]
        return None if inside else [module]
    parts = [_steps(part, known) for part in cast(nn.Sequential, module)]  # also what runs more than once
    sure = [part for part in parts if part is not None]
    return [each for part in sure for each in part] if len(sure) == len(parts) else None


def _is_opaque(module: nn.Module) -> bool:
    return isinstance(module, Opaque)


def _leaves_no_pixels(module: nn.Module) -> bool:
    return isinstance(module, (nn.Flatten, nn.Linear)) or getattr(module, "output_size", None) in (1, (1, 1))
