"""What the attributes of modules and their classes are, by a look at what is stored: no property or descriptor runs."""

from types import FunctionType
from typing import cast

from torch import nn


def is_called_as_usual(module: nn.Module) -> bool:
    """Whether a call runs ``forward`` as its class has it, and attributes are those that were set."""
    called = ("__call__", "_wrapped_call_impl", "_call_impl")
    usual = all(
        of_class(type(module), name)[:1] == of_class(nn.Module, name)[:1]
        for name in (*called, "__getattr__", "__getattribute__")
    )
    return usual and vars(module).keys().isdisjoint((*called, "forward"))


def child_of(module: nn.Module, name: str) -> nn.Module | None:
    """Returns a part of a module as ``module.name`` would; ``None`` if it may be something else."""
    if not is_called_as_usual(module) or name in vars(module) or of_class(type(module), name):
        return None
    return parts_of(module).get(name)


def parts_in_order(module: nn.Module | None) -> list[nn.Module] | None:
    """Returns the parts of a list or a sequence, as a loop over it has them; ``None`` if it may have others."""
    if module is None or type(module) not in (nn.ModuleList, nn.Sequential):
        return None
    parts = parts_of(module)
    found = [part for part in parts.values() if part is not None]
    return found if list(parts) == [str(place) for place in range(len(found))] else None


def parts_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """Returns the parts of a module by name, with all names of one that has several."""
    return cast(dict[str, nn.Module | None], vars(module)["_modules"])


def of_class(kind: type, name: str) -> list[object]:
    """Returns what a class and its bases define under a name, as it is; the first is what counts."""
    return [vars(each)[name] for each in kind.__mro__ if name in vars(each)]


def method_of(kind: type, name: str) -> FunctionType | None:
    """Returns the method of a class of this name, if it is a plain function."""
    found = of_class(kind, name)[:1]
    return found[0] if found and isinstance(found[0], FunctionType) else None
