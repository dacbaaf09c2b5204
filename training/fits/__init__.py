"""From kernels to priors: each family has a file with the stage that fits it; all files here are imported.

A new family takes two new files: ``dwp_init/priors/<family>.py`` with its class, decorated by
:func:`dwp_init.register`, and ``training/fits/<family>.py`` with its fit, decorated by
:func:`training.fits.base.register_fit`. Two files are edited, a line each, to export the class:
``dwp_init/priors/__init__.py`` and ``dwp_init/__init__.py``.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
