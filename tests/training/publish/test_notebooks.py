"""Notebooks of tutorials: made from the pages, and run by Jupyter's own client."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs the docs extra: pip install -e '.[docs]'")

import nbclient

from training.engine.records import ROOT
from training.publish.notebooks import notebook_of
from training.publish.site import NOTEBOOKS

PAGE = """# A page, see [another](../other.md) and [the web](https://example.org)

```bash
pip install '.[timm]'
```

```python
x = 1
print(x)
print(f(x))  # in %
```

```bash
dwp-init list
```
"""


def test_blocks_are_cells_except_installations_and_links_leave_the_site_behind() -> None:
    cells = notebook_of(PAGE).cells
    assert [cell.source for cell in cells if cell.cell_type == "code"] == [
        "x = 1\nprint(x)\nf(x)  # in %",
        "%%bash\ndwp-init list",
    ]
    assert "see another and [the web](https://example.org)" in cells[0].source
    assert any("pip install" in cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("page", NOTEBOOKS)
def test_notebooks_run_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "timm" in page:
        pytest.importorskip("timm")
    bin_folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_folder, os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    notebook = notebook_of((ROOT / "docs" / page).read_text(encoding="utf-8"))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert len(counts) > 3 and all(counts)
    if "timm" in page:
        outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
        assert any("natural-stem" in data.get("text/html", "") for data in outputs)
