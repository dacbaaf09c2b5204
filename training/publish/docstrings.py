"""Docstrings for the documentation site: the roles of Sphinx, such as ``:func:`load_prior```, become links.

An extension of griffe, which reads the docstrings for ``mkdocs.yml``.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`")


class RolesToLinks(griffe.Extension):
    """Replaces each role by a link to what it names; by code where the site has no entry of that name."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of an object that was just read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(role[1], obj), obj.docstring.value)


def _link(name: str, scope: griffe.Object) -> str:
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name.removeprefix("dwp_init.")}</code></autoref>'
