"""Recipes: one typed file per prior, figure and table; each has ``FOLDER`` and ``stages(smoke)``."""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Any

Fields = dict[str, Any]
"""Fields of a stage by name."""


def names() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """Imports a recipe by name.

    Raises:
        ValueError: There is no such recipe; the message suggests near ones.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3) or names()
        raise ValueError(f"no recipe {name!r}; did you mean {', '.join(near)}? See python -m training list")
    return importlib.import_module(f"{__name__}.{name}")


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (load(name).__doc__ or "").strip().splitlines()[0]
