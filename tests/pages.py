"""The code blocks of pages, and how each runs in a test: as a reader would, or checked where it would take hours."""

import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import nn

from dwp_init.cli import main as dwp_init_main

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BIBTEX = re.compile(r"@[a-z]+\{\w+,\n(?:  \w+ += \{.+\},?\n)+\}\n")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page, each with its language."""
    return [(language, code) for language, code in _BLOCK.findall(text)]


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    found: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def readers_model() -> nn.Module:
    """What a reader has as ``model``: a layer of every kind that a bundled prior is for."""
    dense = [nn.Conv2d(16, 16, size) for size in (3, 5, 7)]
    depthwise = [nn.Conv2d(16, 16, size, groups=16) for size in (3, 5, 7)]
    first = nn.Conv2d(3, 16, 7)
    return nn.Sequential(first, *dense, *depthwise, nn.Conv1d(16, 16, 3), nn.Conv3d(16, 16, 3))


def run_blocks(text: str, names: dict[str, object]) -> None:
    """Runs the blocks of a page one after the other."""
    for language, code in code_blocks(text):
        RUNNERS[language](code, names)


def run_command(line: str) -> None:
    """Runs a line of a shell in this process.

    Installations and programs of other projects are looked up: what they install is this package, and the extras,
    modules and files that they name exist. A recipe
    that would take hours is read up to its first stage, and a fit with the settings of record is run with ``--smoke``.
    """
    for part in line.split("&&"):
        words = shlex.split(part, comments=True)
        if words:
            _run([words[0].removeprefix(".venv/bin/"), *words[1:]], line)


def _run(words: list[str], line: str) -> None:
    match words:
        case ["dwp-init", *rest]:
            assert dwp_init_main(rest) == 0, line
        case ["python", "-m", "training", *rest]:
            _run_training(rest, line)
        case ["pip", "install", *_, what]:
            target, _, extras = what.partition("[")
            assert target in (".", "dwp-init"), line
            assert set(re.findall(r"[\w-]+", extras)) <= {*project()["optional-dependencies"]}, line
        case ["python" | "python3", "-m", module, *_]:
            assert find_spec(module), line
        case ["ray", "start", *rest]:
            scripts = pytest.importorskip("ray.scripts.scripts")
            scripts.start.make_context("ray start", rest)
        case ["pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").exists(), line
        case _:
            raise AssertionError(f"no test runs {line}")


def _run_training(words: list[str], line: str) -> None:
    from training import __main__ as training

    if words[0] == "fit" and not any(word.startswith("fit.") for word in words):
        words = [*words, "--smoke", "fit.components=2"]
    if words[0] == "run" and "--smoke" not in words:
        with patch.object(training, "run_stages") as stages:
            assert training.main(words) == 0, line
            stages.assert_called_once()
    else:
        assert training.main(words) == 0, line


def _check_citation(code: str, names: dict[str, object]) -> None:
    assert _BIBTEX.fullmatch(code), code


RUNNERS: dict[str, Callable[[str, dict[str, object]], None]] = {
    "python": lambda code, names: exec(code, names),
    "bash": lambda code, names: [run_command(line) for line in code.splitlines()] and None,
    "bibtex": _check_citation,
    "text": lambda code, names: None,
    "": lambda code, names: None,
}
