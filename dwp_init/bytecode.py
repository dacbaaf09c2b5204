"""What a module's forward pass does with one of its attributes, by the bytecode of its methods."""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn

_JOINS = {"add", "add_", "cat", "concat", "concatenate", "stack"}  # two tensors
_WALKS = {"children", "modules", "named_children", "named_modules", "_modules", "__dict__"}  # reach any part unseen


def only_calls(module: nn.Module, name: str) -> bool:
    """Whether a forward pass calls an attribute, ``self.name(...)``, uses it in no other way, and adds nothing.

    A pass that adds or concatenates anything may add what the attribute returns to what it was given.
    ``for part in self.name`` and ``self.name[0]`` are other ways. Looked at are ``forward``, and the methods and
    properties of the module's classes whose names it uses, and so on; those of a base class that are overridden only
    behind ``super()``. False where there is no bytecode, as in TorchScript, or where a module walks over its parts.
    Python 3.10 hides a call with keywords, which is then another way. A pass may do much besides, which
    :func:`dwp_init.reading.steps_of_pass` rules out.

    Args:
        module: The module.
        name: Name of the attribute.
    """
    if "forward" in vars(module):
        return False
    uses: list[bool] = []
    seen, ahead = set[tuple[str, bool]](), [("forward", False)]
    try:
        while ahead:
            if (method := ahead.pop()) in seen:
                continue
            seen.add(method)
            for code in _codes(module, *method):
                if _adds(code):
                    return False
                behind_super = "super" in code.co_names
                for attribute, called in _attributes(code):
                    uses += [called] if attribute == name else []
                    ahead += [(attribute, False)] + [(attribute, True)] * behind_super
    except ValueError:  # a decorator that wraps itself
        return False
    return bool(uses) and all(uses) and not (_WALKS | _JOINS).intersection(attribute for attribute, _ in seen)


def _adds(code: CodeType) -> bool:
    """Whether a code, or a function inside of it, adds anything by an operator."""
    operators = ((each.opname, each.argrepr) for each in dis.get_instructions(code))
    here = any(
        name in ("BINARY_ADD", "INPLACE_ADD") or (name == "BINARY_OP" and sign in ("+", "+="))
        for name, sign in operators
    )
    return here or any(_adds(inner) for inner in code.co_consts if isinstance(inner, CodeType))


def _codes(module: nn.Module, name: str, everywhere: bool) -> Iterator[CodeType]:
    """Yields the code of a method or property, as the first of the module's classes has it, or as all have it."""
    classes = [each for each in type(module).__mro__ if each not in nn.Module.__mro__]
    defined = [vars(each)[name] for each in classes if name in vars(each)]
    for found in defined if everywhere else defined[:1]:
        function = found.fget if isinstance(found, property) else found
        function = function.func if isinstance(function, functools.cached_property) else function
        inner = inspect.unwrap(function) if isinstance(function, FunctionType) else None  # without decorators
        if isinstance(inner, FunctionType):
            yield inner.__code__


def _attributes(code: CodeType) -> Iterator[tuple[str, bool]]:
    """Yields the names of attributes that a code uses, and whether each is called at once."""
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_METHOD", "LOAD_ATTR"):
            yield each.argval, each.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(each.arg & 1))
        elif each.opname.startswith("LOAD_SUPER"):
            yield str(each.argval), False
    for constant in code.co_consts:  # functions inside of it
        if isinstance(constant, CodeType):
            yield from _attributes(constant)
