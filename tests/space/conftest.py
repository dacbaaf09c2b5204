"""Tests of the demonstration need what it runs on."""

from importlib.util import find_spec

from tests.browser.conftest import need

for _library in ("gradio", "matplotlib", "sklearn", "timm"):
    need(find_spec(_library), f"needs {_library} of the space extra: pip install -e '.[space]'")
