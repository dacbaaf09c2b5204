"""Every code block of ``docs/`` runs: those of a page one after the other, as a reader would run them."""

import doctest
import inspect
import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dwp_init
from dwp_init import bayes
from dwp_init.cli import main as dwp_init_main
from tests.localhub import LocalHub
from tests.localhub.repos import User

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md"))}
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LIBRARIES = ("timm", "lightning", "transformers", "torchvision")
# Of every upload by huggingface_hub; of Lightning on few cores; of Lightning with the newest torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page, each with its language."""
    return [(language, code) for language, code in _BLOCK.findall(text)]


def run_command(line: str) -> None:
    """Runs one line of a shell in this process; of an installation checks that its extras exist."""
    match shlex.split(line, comments=True):
        case ["dwp-init", *words]:
            assert dwp_init_main(words) == 0, line
        case ["python", "-m", "training", *words]:
            from training.__main__ import main

            assert main(words) == 0, line
        case ["pip", "install", what]:
            toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
            extras = toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
            assert set(re.findall(r"[\w-]+", what.partition("[")[2])) <= set(extras), line
        case words:
            raise AssertionError(f"no test runs {words}")


RUNNERS: dict[str, Callable[[str, dict[str, object]], None]] = {
    "python": lambda code, names: exec(code, names),
    "bash": lambda code, names: [run_command(line) for line in code.splitlines()] and None,
    "text": lambda code, names: None,
}


@pytest.mark.parametrize("page", [name for name, path in PAGES.items() if code_blocks(path.read_text("utf-8"))])
def test_code_blocks_run(
    page: str, hub: LocalHub, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGES[page].read_text("utf-8")
    for library in LIBRARIES:
        if re.search(rf"^(?:import|from) {library}\b", text, re.MULTILINE):
            pytest.importorskip(library)
    if "training" in text.replace("is trained", ""):
        pytest.importorskip("torchvision", reason="needs the training extra")
    hub.tokens["hf_me"] = User("me")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for language, code in code_blocks(text):
        RUNNERS[language](code, names)


def public_names() -> dict[str, Any]:
    """The functions and classes that ``dwp_init`` and ``dwp_init.bayes`` export, and ``init.kernels_``."""
    exported = {**vars(dwp_init), **{f"bayes.{name}": each for name, each in vars(bayes).items()}}
    own = {name: each for name, each in exported.items() if getattr(each, "__module__", "").startswith("dwp_init")}
    functions_or_classes = (inspect.isfunction, inspect.isclass)
    found = {name: each for name, each in own.items() if any(is_one(each) for is_one in functions_or_classes)}
    return {"init.kernels_": dwp_init.init.kernels_, **found}


FUNCTIONS = {name: each for name, each in public_names().items() if inspect.isfunction(each)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_public_function_has_an_example_that_runs(
    name: str, toy_families: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the imports that the reference's first page names, and no other."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    RUNNERS["python"](dict(code_blocks(PAGES["docs/reference/index.md"].read_text("utf-8")))["python"], names)
    (example,) = doctest.DocTestFinder(recurse=False).find(inspect.unwrap(FUNCTIONS[name]), name, globs=names)
    assert example.examples
    runner = doctest.DocTestRunner()
    assert runner.run(example).failed == 0


def test_each_public_name_is_in_the_reference() -> None:
    assert {"apply_", "init.kernels_", "load_prior", "register", "bayes.predict", "bayes.train_"} <= set(FUNCTIONS)
    pages = [path.read_text("utf-8") for name, path in PAGES.items() if name.startswith("docs/reference/")]
    paths = [path.rpartition(".") for text in pages for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    shown = [getattr(import_module(module), name) for module, _, name in paths]
    assert [name for name, each in public_names().items() if each not in shown] == []


def test_an_unknown_command_and_an_unknown_extra_fail() -> None:
    with pytest.raises(AssertionError, match="no test runs"):
        run_command("rm -r runs")
    with pytest.raises(AssertionError):
        run_command("pip install '.[nothing]'")
