"""Everything in this folder is marked ``training`` and skipped where the extra is not installed."""

from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="needs the training extra: pip install -e '.[training]'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.training)
