"""Notebooks of tutorials, made from their Markdown."""

import re

import jupytext
from nbformat import NotebookNode

_INSTALL = re.compile(r"^```bash\npip ", re.MULTILINE)
_PRINTED = re.compile(r"^print\((.+)\)([^)\n]*)\Z", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)")


def notebook_of(markdown: str) -> NotebookNode:
    """Turns a tutorial into a notebook: its blocks of Python and bash are cells, except what installs packages.

    Links to other pages become text, because a notebook leaves the site. A cell that ends by printing a value ends with
    the value, so that a report is shown as tables.
    """
    text = _LINK.sub(r"\1", _INSTALL.sub("```text\npip ", markdown))
    notebook: NotebookNode = jupytext.reads(text, fmt="markdown")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _PRINTED.sub(r"\1\2", cell.source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook
