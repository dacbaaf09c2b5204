"""The order of the tree: imports point down, one place for each thing, files and functions of moderate length."""

import ast
from pathlib import Path

import pytest

from tests.house import CODE, FLOORS, House, floors, folder_imports, private_imports

HOUSE = House(Path(__file__).parents[1])
WITHOUT_A_MODULE = {  # tests of the whole, which no module stands for
    "tests.browser.test_draws",
    "tests.browser.test_gallery",
    "tests.browser.test_pages",
    "tests.browser.test_space",
    "tests.interop.test_diffusers",
    "tests.interop.test_init",
    "tests.test_bundled",
    "tests.test_docs",
    "tests.test_draws",
    "tests.test_families",
    "tests.test_import",
    "tests.test_readme",
    "tests.test_zoo",
    "tests.training.test_end_to_end",
}


def test_every_folder_of_training_is_on_a_floor() -> None:
    folders = {module.folder for module in HOUSE.code.values()} - {""}
    assert folders == {folder for floor in FLOORS for folder in floor}
    assert len(FLOORS) <= 8


def test_imports_point_down() -> None:
    assert HOUSE.wrong_ways() == []
    assert floors(folder_imports(HOUSE)) <= 8


def test_no_module_imports_itself_through_others() -> None:
    assert HOUSE.cycle() == []


def test_imports_and_names_of_every_form_are_seen(tmp_path: Path) -> None:
    files = {
        "dwp_init/x.py": "import training.publish.hub as hub\nLIMIT = 1",
        "training/arguments.py": "",
        "training/engine/run.py": "def run():\n    from ..publish import hub\n    from .. import arguments",
        "training/fits/a.py": "from . import b",
        "training/fits/b.py": "try:\n    from .a import x\nexcept ImportError:\n    LIMIT: int = 2",
        "training/publish/hub.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    house = House(tmp_path)
    assert house.wrong_ways() == [
        "dwp_init.x imports training.publish.hub",
        "training.engine.run imports training.publish.hub",
        "training.engine.run imports training.arguments",
    ]
    assert {"training.fits.a", "training.fits.b"} == set(house.cycle())
    assert house.twins() == {"LIMIT": ["dwp_init.x", "training.fits.b"]}


def test_stage_files_import_only_the_stage_that_they_extend() -> None:
    assert {"FitMixture", "Converge", "Classify"} <= set(HOUSE.stages)
    assert HOUSE.sideways() == []


def test_a_public_name_is_defined_once() -> None:
    assert not HOUSE.twins()


def test_there_is_one_training_step_a_kind_and_one_resume_loop() -> None:
    calls = {name: (module.calls("backward"), module.calls("run_jobs")) for name, module in HOUSE.code.items()}
    assert sum(backward for backward, _ in calls.values()) <= 3
    assert [name for name, (_, runs) in calls.items() if runs] == ["training.engine.sweep"]
    assert sum(runs for _, runs in calls.values()) == 1


def test_files_and_functions_are_short() -> None:
    assert {name: module.lines for name, module in HOUSE.code.items() if module.lines > 300} == {}
    functions = [function for module in HOUSE.code.values() for function in module.functions()]
    assert len(functions) > 500
    assert {name: lines for name, lines in functions if lines > 40} == {}


def test_the_tests_are_not_much_longer_than_the_code() -> None:
    lines = sum(module.lines for module in HOUSE.code.values())
    assert sum(module.lines for module in HOUSE.tests.values()) <= 1.1 * lines


def test_an_option_that_is_repeated_keeps_all_of_its_values() -> None:
    texts = [module.text for module in (*HOUSE.code.values(), *HOUSE.tests.values())]
    counts = [sum(text.count(part) for text in texts) for part in ('nargs="' + '+"', 'action="extend", nargs="' + '+"')]
    assert counts[0] == counts[1] > 3


def test_tests_import_public_names_only() -> None:
    assert private_imports(HOUSE) == []


def test_the_pipeline_runs_on_windows_too() -> None:
    guarded = "dwp_init.folder"  # asks for the platform first; tests/test_folder.py runs it as on Windows
    imported = {source for name, module in HOUSE.code.items() for source, _ in module.imported() if name != guarded}
    assert "torch" in imported
    assert not imported & {"fcntl", "resource", "pwd", "grp", "termios"}
    without_encoding = [name for name, module in HOUSE.code.items() if "read_text()" in module.text]
    assert without_encoding == []


@pytest.mark.parametrize("folder", ["dwp_init/priors", "training/fits", "training/starts", "training/experiments"])
def test_every_public_class_has_a_docstring(folder: str) -> None:
    modules = [module for module in HOUSE.code.values() if module.path.parent == HOUSE.root / folder]
    classes = [node for module in modules for node in module.tree.body if isinstance(node, ast.ClassDef)]
    public = {node.name: ast.get_docstring(node) for node in classes if not node.name.startswith("_")}
    assert modules and [name for name, docstring in public.items() if not docstring] == []


def test_each_test_file_belongs_to_a_module() -> None:
    strangers = set()
    for name in HOUSE.tests:
        *folders, file = name.split(".")[1:]
        subject = file.removeprefix("test_")
        packages = ("tests", "dwp_init.priors", *CODE)
        places = {".".join([*place, *folders, subject]) for place in ([], *([package] for package in packages))}
        modules = {*HOUSE.code, *HOUSE.tests, "training.main"}  # the last for training.__main__
        if file.startswith("test_") and not places & modules:
            strangers.add(name)
    assert strangers == WITHOUT_A_MODULE
