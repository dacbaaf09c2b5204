"""``python -m dwp_init``."""

import os
import subprocess
import sys
from pathlib import Path

import dwp_init


def test_the_package_runs_as_the_command() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(dwp_init.__file__).parents[1])}
    command = [sys.executable, "-m", "dwp_init"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dwp-init {dwp_init.__version__}\n", "")
    done = subprocess.run([*command, "show", "nothing"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("error: no prior and no folder is called 'nothing'")
