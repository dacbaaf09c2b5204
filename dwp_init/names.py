"""Names of a model's modules, without the parts that wrappers such as ``torch.compile`` and DDP add to them."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

from torch import nn
from torch.optim.swa_utils import AveragedModel

_PARTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_PLAIN = "torch.nn.modules."  # torch's own modules wrap none
_OWNERS_OF_MODULE = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


class Named(NamedTuple):
    """A module and its names.

    Attributes:
        name: Its name in the model without wrappers, such as ``layer1.0.conv1``.
        path: Its name as in ``named_modules()``, such as ``_orig_mod.layer1.0.conv1``.
        module: The module.
    """

    name: str
    path: str
    module: nn.Module

    def matches(self, pattern: str) -> bool:
        """Whether one of the names matches a pattern."""
        return matches(pattern, self.name, self.path)


def named_modules(model: nn.Module) -> Iterator[Named]:
    """Yields the modules of a model in their order, except for wrappers, whose name is that of what they wrap.

    Wrappers are what ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``, ``FullyShardedDataParallel``,
    checkpointing, ``AveragedModel``, timm's ``ModelEmaV3`` and Lightning's Fabric put around a module.
    """
    return (named for named in _every_module(model, remove_duplicate=True) if _wrapped(named.module) is None)


def state_names(model: nn.Module) -> dict[str, str]:
    """Returns the names of a model's state without wrappers, in the order of ``state_dict()``, by those it has there.

    A module that is registered twice has its state under both names.
    """
    modules = {named.path: named.name for named in _every_module(model, remove_duplicate=False)}
    found: dict[str, str] = {}
    for key in cast(dict[str, object], model.state_dict()):
        path = key.rpartition(".")[0]
        while path not in modules:  # what a hook of the state renamed
            path = path.rpartition(".")[0]
        found[key] = ".".join(filter(None, [modules[path], key[len(path) :].removeprefix(".")]))
    return found


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Returns all names of a module in a model, without the parts of wrappers; more than one where it is shared."""
    return [named.name for named in _every_module(model, remove_duplicate=False) if named.module is module]


def _every_module(model: nn.Module, remove_duplicate: bool) -> Iterator[Named]:
    """Yields the modules of a model, also wrappers, in their order; those registered twice once, or with each name."""
    named: dict[str, Named] = {}
    wrapped: dict[str, str | None] = {}
    modules = model.named_modules(remove_duplicate=remove_duplicate)
    for path, module in cast(Iterator[tuple[str, nn.Module]], modules):  # torch does not annotate it
        above, _, part = path.rpartition(".")
        owner = named[above] if path else None
        added = part if owner is None or part != wrapped[above] else ""
        name = ".".join(filter(None, [owner.name if owner else "", added]))
        named[path], wrapped[path] = Named(name, path, module), _wrapped(module)
        yield named[path]


def matches(pattern: str, *names: str) -> bool:
    """Whether one of the names equals a pattern, or matches it as in ``fnmatch``, case-sensitively."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _wrapped(module: nn.Module) -> str | None:
    """Returns the attribute that holds the module inside a wrapper; ``None`` if the module is no wrapper."""
    if type(module).__module__.startswith(_PLAIN):
        return None
    children: dict[str, object] = vars(module)["_modules"]  # faster than module.named_children()
    averages = type(module).__module__ == "timm.utils.model_ema" and "module" in children
    if isinstance(module, _OWNERS_OF_MODULE) or averages:
        return "module"
    return next((part for part in _PARTS if part in children), None) if children else None
