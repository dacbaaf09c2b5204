"""Walks a newcomer's path in a fresh clone: README's first command, then a tutorial, up to a Hub of this machine.

python .ci/newcomer.py [LIBRARIES]

Each command is run as it is written. LIBRARIES is a folder of installed packages, so that pip downloads none again.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

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
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        path = os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": libraries, "HF_HOME": scratch}
        readme = (clone / "README.md").read_text(encoding="utf-8").split("## Start")[1]
        first = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)[0]
        print(first, flush=True)
        subprocess.run(["bash", "-ec", first], cwd=clone, env=environment, check=True)
        _follow(clone, environment)


def _follow(clone: Path, environment: Mapping[str, str]) -> None:
    """Runs the tutorial's blocks in the order of the page, with a Hub of this machine in place of the public one."""
    with LocalHub() as hub:
        hub.tokens["hf_me"] = User("me")
        there = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1"}
        command = [str(clone / ".venv" / "bin" / "python"), "-c", SESSION, TUTORIAL]
        subprocess.run(command, cwd=clone, env={**environment, **there}, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
