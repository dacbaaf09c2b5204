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

    What a wrapper keeps for itself is left out, such as the number of models in an average. A module that is registered
    twice has its state under both names; where two names would become one, one stays as it is.
    """
    modules = {named.path: named.module for named in _every_module(model, remove_duplicate=False)}
    found: dict[str, str] = {}
    taken: set[str] = set()
    state: dict[str, object] = model.state_dict()
    for key in state:
        parts = key.split(".")
        owners = [modules.get(".".join(parts[:place])) for place in range(len(parts))]
        if owners[-1] is not None and _wrapped(owners[-1]) is not None and _is_own(owners[-1], parts[-1]):
            continue
        kept = [
            part
            for part, owner in zip(parts, owners, strict=True)
            if part not in _PARTS and not (owner is not None and part == _wrapped(owner))
        ]
        name = ".".join(kept)
        found[key] = key if name in taken or (name != key and name in state) else name
        taken.add(name)
    return found


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Returns all modules of a model by their paths, also under TorchScript, which has no ``get_submodule``."""
    return dict(cast(Iterator[tuple[str, nn.Module]], model.named_modules(remove_duplicate=False)))


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Returns all names of a module in a model, without the parts of wrappers; more than one where it is shared."""
    return [named.name for named in _every_module(model, remove_duplicate=False) if named.module is module]


def buffer_names(model: nn.Module) -> set[str]:
    """Returns the names of a model's buffers, as in :func:`state_names`."""
    return {
        joined(named.name, name)
        for named in _every_module(model, remove_duplicate=False)
        for name, _ in named.module.named_buffers(recurse=False)
    }


def joined(name: str, leaf: str) -> str:
    """Returns the name of a part of a module, whose own name may be empty."""
    return f"{name}.{leaf}" if name else leaf


def _every_module(model: nn.Module, remove_duplicate: bool) -> Iterator[Named]:
    """Yields the modules of a model, also wrappers, in their order; those registered twice once, or with each name."""
    named: dict[str, Named] = {}
    wrapped: dict[str, str | None] = {}
    taken: dict[str, nn.Module] = {}
    there: dict[str, nn.Module] = {}
    modules = model.named_modules(remove_duplicate=remove_duplicate)
    for path, module in cast(Iterator[tuple[str, nn.Module]], modules):  # torch does not annotate it
        if "_modules" not in vars(module):
            raise ValueError(
                f"{path or 'the model'} is a {type(module).__name__}: torch.jit.trace keeps no sizes of kernels; call "
                "this for the model before it is traced"
            )
        above, _, part = path.rpartition(".")
        owner = named[above] if path else None
        added = part if owner is None or part != wrapped[above] else ""
        name = ".".join(filter(None, [owner.name if owner else "", added]))
        wrapped[path] = _wrapped(module)
        if name != path and wrapped[path] is None:
            there = there or modules_by_path(model)
            other = there.get(name, module)
            if (other is not module and _wrapped(other) is None) or taken.setdefault(name, module) is not module:
                name = path  # a wrapper has a module of the same name as one inside it
        named[path] = Named(name, path, module)
        yield named[path]


def matches(pattern: str, *names: str) -> bool:
    """Whether one of the names equals a pattern, or matches it as in ``fnmatch``, case-sensitively."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _is_own(module: nn.Module, name: str) -> bool:
    """Whether a module itself has a parameter or buffer of this name."""
    state: dict[str, dict[str, object]] = vars(module)
    return name in state["_parameters"] or name in state["_buffers"]


def _wrapped(module: nn.Module) -> str | None:
    """Returns the attribute that holds the module inside a wrapper; ``None`` if the module is no wrapper."""
    if type(module).__module__.startswith(_PLAIN):
        return None
    children: dict[str, object] = vars(module)["_modules"]  # faster than module.named_children()
    averages = type(module).__module__ == "timm.utils.model_ema" and "module" in children
    if isinstance(module, _OWNERS_OF_MODULE) or averages:
        return "module"
    return next((part for part in _PARTS if part in children), None) if children else None
