"""The folder of a Space, and what its metadata and requirements say."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from dwp_init.registry import registry
from training.engine.records import ROOT
from training.publish.space import write_space


def test_the_folder_has_what_a_space_needs(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "space")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "LICENSES/Apache-2.0.txt", "space/race.py"} <= names
    assert {f"dwp_init/bundled/{name}/model.safetensors" for name in registry()} <= names
    assert "space/README.md" not in names and not any("__pycache__" in name for name in names)
    with pytest.raises(ValueError, match="has files already; remove it, or name another folder"):
        write_space(folder)


def test_the_metadata_is_that_of_a_space() -> None:
    text = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["sdk"] == "gradio" and metadata["app_file"] == "app.py" and metadata["license"] == "mit"
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["sdk_version"]) and len(metadata["short_description"]) <= 60
    assert "dwp-prior" in metadata["tags"]


def test_the_requirements_are_those_of_the_package_and_its_extra() -> None:
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    expected = {*project["dependencies"], *extras["timm"], *extras["space"]} - {"dwp-init[timm]"}
    lines = (ROOT / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith(("#", "--"))} == expected
