"""Tests of the demonstration need what it runs on."""

import pytest

pytest.importorskip("matplotlib", reason="needs the space extra: pip install -e '.[space]'")
pytest.importorskip("sklearn", reason="needs the space extra: pip install -e '.[space]'")
pytest.importorskip("timm", reason="needs the space extra: pip install -e '.[space]'")
