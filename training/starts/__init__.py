"""How the convolutions of a network may start. Every module of this folder enters its starts into ``base.STARTS``."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
