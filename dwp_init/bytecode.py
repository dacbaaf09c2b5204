"""What a module's forward pass does with one of its attributes, by the bytecode of its methods."""

import dis
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn


def only_calls(module: nn.Module, name: str) -> bool:
    """Whether a module's forward pass calls an attribute, ``self.name(...)``, and uses it in no other way.

    ``for part in self.name`` and ``self.name[0]`` are other ways. Looked at are ``forward`` and the methods of the
    module's classes that it calls. False where there is no bytecode, as in TorchScript.

    Args:
        module: The module.
        name: Name of the attribute.
    """
    if "forward" in vars(module):
        return False
    uses: list[bool] = []
    seen, ahead = set[str](), ["forward"]
    while ahead:
        method = ahead.pop()
        if method in seen:
            continue
        seen.add(method)
        for attribute, called in _attributes(module, method):
            if attribute == name:
                uses.append(called)
            elif called:
                ahead.append(attribute)
    return bool(uses) and all(uses)


def _attributes(module: nn.Module, method: str) -> Iterator[tuple[str, bool]]:
    """Yields the attributes that a method uses, and whether each is called at once, in all classes that define it."""
    classes = [each for each in type(module).__mro__ if each not in nn.Module.__mro__]
    for function in (vars(each).get(method) for each in classes):
        if isinstance(function, FunctionType):
            inner = inspect.unwrap(function)  # what is inside of decorators, such as torch.no_grad()
            yield from _in_code(inner.__code__ if isinstance(inner, FunctionType) else function.__code__)


def _in_code(code: CodeType) -> Iterator[tuple[str, bool]]:
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_METHOD", "LOAD_ATTR"):
            yield each.argval, each.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(each.arg & 1))
    for constant in code.co_consts:  # functions inside of the method
        if isinstance(constant, CodeType):
            yield from _in_code(constant)
