"""Every code block of every page runs: those of a page one after the other, as a reader would run them."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import dwp_init
from dwp_init import bayes
from tests.localhub import LocalHub
from tests.localhub.repos import User
from tests.pages import ROOT, code_blocks, readers_model, run_blocks, run_command

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
        "python -m training run benchmark --record --data-root DATA",  # without --from-record
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
