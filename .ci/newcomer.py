"""Walks a newcomer's path in a fresh clone: README's first command, then a tutorial, up to a Hub of this machine.

python .ci/newcomer.py [LIBRARIES]

Each command is run as it is written, in a virtual environment of the clone. LIBRARIES is a folder of installed
packages, so that pip downloads none again: the environment sees those that the page's installation asks for, with all
that they require, and no other, so that an extra that a page forgets is missed. Without it pip downloads them.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.localhub import LocalHub  # noqa: E402
from tests.localhub.repos import User  # noqa: E402

TUTORIAL = "docs/tutorials/own-prior.md"
SESSION = """
import re, subprocess, sys
names = {"__name__": "__main__"}
for language, code in re.findall(r"^```(python|bash)\\n(.*?)^```$", open(sys.argv[1]).read(), re.DOTALL | re.MULTILINE):
    print("\\n" + code, flush=True)
    if language == "bash":
        subprocess.run(["bash", "-ec", code], check=True)
    else:
        exec(code, names)
"""


def main(libraries: str = "") -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clone, seen = Path(scratch) / "clone", Path(scratch) / "libraries"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        path = os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(seen), "HF_HOME": scratch}
        readme = (clone / "README.md").read_text(encoding="utf-8").split("## Start")[1]
        first = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)[0]
        show(installed_by(first), libraries, seen)
        print(first, flush=True)
        subprocess.run(["bash", "-ec", first], cwd=clone, env=environment, check=True)
        show(installed_by((clone / TUTORIAL).read_text(encoding="utf-8")), libraries, seen)
        _follow(clone, environment)


def installed_by(text: str) -> list[str]:
    """The requirements of the installations of this package in a text, such as ``dwp-init[timm]``."""
    return [f"dwp-init{extras}" for extras in re.findall(r"pip install (?:-e )?'?\.(\[[\w,-]+\])?", text)]


def show(requirements: Iterable[str], libraries: str, folder: Path) -> None:
    """Puts links to the packages that are required into a folder, from one of installed packages if it is given."""
    folder.mkdir(exist_ok=True)
    for found in needed(requirements, libraries).values() if libraries else ():
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(libraries) / top)


def needed(requirements: Iterable[str], libraries: str) -> dict[str, Distribution]:
    """The packages that requirements of this package lead to, by name, of a folder of installed ones."""
    there = {canonicalize_name(each.metadata["Name"]): each for each in distributions(path=[libraries])}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, asked, left = dict[str, Distribution](), set[str](), [Requirement(each) for each in requirements]
    while left:
        required = left.pop()
        name = canonicalize_name(required.name)
        if (key := f"{name}{sorted(required.extras)}") in asked:
            continue
        asked.add(key)
        if name == "dwp-init":
            optional = project["optional-dependencies"]
            lines = project["dependencies"] + [line for extra in required.extras for line in optional[extra]]
        elif name in there:
            found[name], lines = there[name], there[name].requires or []
        else:
            raise LookupError(f"{libraries} has no {name}, which {', '.join(requirements)} requires; install it there")
        asks = [Requirement(line) for line in lines]
        extras = ["", *required.extras]
        left += [each for each in asks if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)]
    return found


def _follow(clone: Path, environment: Mapping[str, str]) -> None:
    """Runs the tutorial's blocks in the order of the page, with a Hub of this machine in place of the public one."""
    with LocalHub() as hub:
        hub.tokens["hf_me"] = User("me")
        there = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1"}
        command = [str(clone / ".venv" / "bin" / "python"), "-c", SESSION, TUTORIAL]
        subprocess.run(command, cwd=clone, env={**environment, **there}, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
