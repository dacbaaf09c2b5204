"""Randomness apart from the global random state, which other threads use at the same time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # documented in "Extending PyTorch"


class OwnRandomness(TorchDispatchMode):
    """A context in which random operations of this thread take generators of its own, with the seed 0.

    The global random state neither changes nor is read, so that other threads draw what they would draw without it.
    An operation that takes no generator, such as ``native_dropout`` of tensors on an accelerator, runs as it is.
    ``torch.random.fork_rng`` instead puts the state back, and with it what other threads have drawn meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and given.get("generator") is None:
            func, given = self._with_generator(func, args, given)
        return func(*args, **given)

    def _with_generator(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Returns an operation, or its twin that takes a generator, and its arguments with one."""
        twins = {"default": "generator", "low": "low_generator", "from": "from", "to": "to"}
        taking = func
        if not _takes_generator(func):
            name = twins.get(func._overloadname, "")
            taking = getattr(func.overloadpacket, name, None) if name in func.overloadpacket.overloads() else None
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device(kwargs.get("device") or "cpu")
        if taking is None or not _takes_generator(taking) or device.type == "meta":
            return func, kwargs
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(0)
        return taking, kwargs | {"generator": self._generators[device]}


def _takes_generator(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)
