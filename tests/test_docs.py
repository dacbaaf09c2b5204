"""Every code block of every page runs, or is checked where it would install something or take hours."""

import ast
import doctest
import inspect
import re
import runpy
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import dwp_init
from dwp_init import bayes
from tests.localhub import LocalHub
from tests.localhub.repos import User
from tests.pages import ROOT, code_blocks, project, readers_model, run_blocks, run_command

PLACES = ("*.md", "docs/**/*.md", "model_cards/**/*.md", "space/*.md", "training/**/*.md")
PAGES = {path.relative_to(ROOT).as_posix(): path for place in PLACES for path in sorted(ROOT.glob(place))}
LIBRARIES = ("lightning", "ray", "timm", "torchvision", "transformers")
# Of every upload by huggingface_hub; of Lightning on few cores; of Lightning with the newest torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


@pytest.mark.parametrize("page", [name for name, path in PAGES.items() if code_blocks(path.read_text("utf-8"))])
def test_code_blocks_run(
    page: str, hub: LocalHub, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGES[page].read_text("utf-8")
    code = "".join(code for _, code in code_blocks(text))
    needed = [library for library in LIBRARIES if re.search(rf"\b{library}\b", code)]
    for library in [*needed, *["torchvision"] * ("training" in code)]:
        pytest.importorskip(library)
    hub.tokens["hf_me"] = User("user" if "user/my-prior" in code else "me")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    if not page.startswith("docs/"):  # a page of the site is whole, and others are for the reader's model
        names["model"] = readers_model()
    if page == "training/README.md":
        what_the_pipeline_reads(hub)
    run_blocks(text, names)


@pytest.mark.parametrize("page", [name for name in PAGES if name.startswith("docs/")])
def test_a_page_installs_what_it_imports(page: str) -> None:
    text = PAGES[page].read_text("utf-8")
    asked = [extra for named in re.findall(r"pip install '\.\[([\w,-]+)\]'", text) for extra in named.split(",")]
    assert uncovered(code_blocks(text), asked) == set()


@pytest.mark.parametrize(
    ("code", "asked", "missed"),
    [
        ("import json\nimport torch\nimport dwp_init", [], set()),
        ("def f():\n    from timm.layers import x", [], {"timm"}),
        ("import timm\nfrom PIL import Image", ["docs"], set()),  # an extra that names others
        ("from training.networks import scores", ["timm"], {"training"}),
    ],
)
def test_an_extra_that_a_page_forgets_is_missed(code: str, asked: list[str], missed: set[str]) -> None:
    assert uncovered([("python", code)], asked) == missed


def test_a_newcomer_sees_what_a_page_installs_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("packaging")
    assert project()["name"] == "dwp-init"  # can be read
    newcomer = runpy.run_path(str(ROOT / ".ci" / "newcomer.py"), run_name="newcomer")
    libraries, seen = tmp_path / "libraries", tmp_path / "seen"
    requires = {"torch": ["sympy", "optree; extra == 'optree'"], "huggingface-hub": ["tqdm; python_version < '3'"]}
    for name in ("torch", "huggingface-hub", "safetensors", "sympy", "timm", "tqdm", "optree"):
        info = libraries / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        lines = [f"Requires-Dist: {line}\n" for line in requires.get(name, ())]
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{''.join(lines)}")
        (info / "RECORD").write_text(f"{name}.py,,\n../../../bin/{name},,\n{info.name}/METADATA,,\n")
        (libraries / f"{name}.py").touch()
    assert newcomer["installed_by"]("pip install '.[timm]'\npip install . && x") == ["dwp-init[timm]", "dwp-init"]
    newcomer["show"](["dwp-init"], str(libraries), seen)
    alone = {"torch", "huggingface-hub", "safetensors", "sympy"}
    assert {path.stem for path in seen.glob("*.py")} == alone and len(list(seen.iterdir())) == 2 * len(alone)
    newcomer["show"](["dwp-init[timm]"], str(libraries), seen)
    assert {path.stem for path in seen.glob("*.py")} == alone | {"timm"}
    with pytest.raises(LookupError, match=r"has no .*, which dwp-init\[interop\] requires; install it"):
        newcomer["needed"](["dwp-init[interop]"], str(libraries))


def uncovered(blocks: list[tuple[str, str]], asked: list[str]) -> set[str]:
    """What the blocks of a page import and neither the package nor the extras that it asks for require."""
    code = [ast.parse(block) for language, block in blocks if language == "python"]
    nodes = [node for tree in code for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    shell = "".join(block for language, block in blocks if language == "bash")
    names += ["training"] * ("python -m training" in shell) + ["timm"] * ("timm:" in shell)
    imported = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"dwp_init"}
    offered = offered_by(asked)
    return {name for name in imported if not {name, *packages_distributions().get(name, ())} & offered}


def offered_by(asked: list[str]) -> set[str]:
    """The packages that this package requires with extras, and the names of these and of those that they name."""
    lines, left, found = list(project()["dependencies"]), list(asked), set(asked)
    while left:
        lines += project()["optional-dependencies"][left.pop()]
        inner = {extra for line in lines for extra in re.findall(r"[\w-]+", line.partition("[")[2]) if "dwp-" in line}
        left += inner - found
        found |= inner
    return found | {re.split(r"[^\w-]", line)[0] for line in lines}


@pytest.mark.parametrize("page", [name for name in PAGES if not name.startswith("model_cards/")])
def test_no_page_promises_a_duration_that_no_file_of_results_has(page: str) -> None:
    text = " ".join(PAGES[page].read_text("utf-8").split())
    assert (
        re.findall(r"(?:in|takes|for|over) (?:\w+ )?(?:seconds|minutes|hours|night|days)\b(?! on two cores\.)", text)
        == []
    )


def what_the_pipeline_reads(hub: LocalHub) -> None:
    """Makes what a reader of the pipeline's page has: networks, kernels, and the priors of a night of training."""
    import numpy
    import timm

    for name in ("resnet18", "resnet34"):
        content = {"model.safetensors": save(timm.create_model(name, num_classes=2).state_dict())}
        hub.add_repo(f"timm/{name}.a1_in1k", content)
    Path("my-checkpoints").mkdir()
    network = save(timm.create_model("regnetx_002", num_classes=2).state_dict())
    Path("my-checkpoints/mine.safetensors").write_bytes(network)
    numpy.save("kernels.npy", torch.randn(600, 3, 3).cumsum(1).numpy())
    by_depth = "runs/tinyimagenet-photos/by_depth_dw7x7/prior"
    dwp_init.save_prior(dwp_init.load_prior("tinyimagenet-dw7x7"), by_depth)


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
    run_blocks(PAGES["docs/reference/index.md"].read_text("utf-8"), names)
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


@pytest.mark.parametrize(
    "line",
    [
        "rm -r runs",
        "pip install '.[nothing]'",
        "python -m no_module",
        ".venv/bin/dwp-init draw none",
        "pip list",
        "pip download x",
    ],
)
def test_a_line_that_cannot_be_run_as_it_stands_fails(line: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(line)):
        run_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "python -m training run no_recipe",
        "python -m training run fig4b fig4b_runs.no_field=1",
        "python -m training run fig4b --only no_stage",
        "python -m training run fig3a --from-record",  # keeps no runs
    ],
)
def test_a_recipe_that_would_take_hours_is_read(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=re.escape(line.partition(" #")[0])):
        run_command(line)


def test_a_citation_that_bibtex_cannot_read_fails() -> None:
    with pytest.raises(AssertionError, match="@misc"):
        run_blocks("```bibtex\n@misc{a,\n  title = {b,\n}\n```\n", {})
