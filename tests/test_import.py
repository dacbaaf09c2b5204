"""Importing the package is light, and it works without numpy and network."""

import json
import subprocess
import sys
from pathlib import Path

import dwp_init

FOREIGN = {"torchvision", "matplotlib", "training", "tqdm", "PIL", "pyarrow", "numpy", "huggingface_hub", "requests"}
OFFLINE = """
import socket

def refuse(*arguments, **options):
    raise RuntimeError("a socket was opened")

socket.socket.__init__ = socket.getaddrinfo = refuse
"""


def run(script: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy_and_opens_no_socket() -> None:
    script = """
import json, sys, torch, safetensors.torch
before = set(sys.modules)
import dwp_init, dwp_init.cli
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    added = json.loads(run(OFFLINE + script, Path(dwp_init.__file__).parents[1]))
    assert "dwp_init.cli" in added
    assert not [name for name in added if name.split(".")[0] in FOREIGN]


def test_everything_works_without_numpy_and_network(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\n\ndef make():\n    return torch.nn.Conv2d(1, 2, 3)\n")
    script = f"""
import sys, warnings
sys.path.insert(0, {str(Path(dwp_init.__file__).parents[1])!r})
sys.modules["numpy"] = None
warnings.simplefilter("ignore")  # torch says that numpy is missing
import torch, dwp_init, dwp_init.cli
dwp_init.save_prior(dwp_init.KernelVAE((1, 3, 3), hidden=4), "prior")
assert dwp_init.cli.main(["show", "prior"]) == 0
assert dwp_init.cli.main(["draw", "prior", "-o", "a.png"]) == 0
assert dwp_init.cli.main(["apply", "net:make", "--prior", "prior", "--save", "a.safetensors"]) == 0
dwp_init.apply_(torch.nn.Conv2d(8, 8, 3), "natural")
for name in dwp_init.list_priors():
    dwp_init.load_prior(name)
assert "torch._dynamo" not in sys.modules  # it takes a second to import
old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)  # torch 2.6 imports sympy to check sizes on meta
assert old or "sympy" not in sys.modules
"""
    run(OFFLINE + script, tmp_path)
    assert {"a.png", "a.safetensors", "prior"} < {path.name for path in tmp_path.iterdir()}


def test_the_package_is_typed() -> None:
    assert (Path(dwp_init.__file__).parent / "py.typed").is_file()
