"""Notebooks of tutorials, made from their Markdown."""

import re

import jupytext
from nbformat import NotebookNode

_INSTALL = re.compile(r"^```bash\npip ", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)")


def notebook_of(markdown: str) -> NotebookNode:
    """Turns a tutorial into a notebook: its blocks of Python and bash are cells, except what installs packages.

    Links to other pages become text, because a notebook leaves the site.
    """
    text = _LINK.sub(r"\1", _INSTALL.sub("```text\npip ", markdown))
    notebook: NotebookNode = jupytext.reads(text, fmt="markdown")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook
