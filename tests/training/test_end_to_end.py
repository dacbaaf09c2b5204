"""From a smoke recipe to a network initialised in another process: run, publish, pin, pull, apply."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.localhub import LocalHub
from training.__main__ import main

REPO = "dwp-init/smoke-7x7"
ROOT = Path(__file__).parents[2]
APPLY = """
import hashlib, pathlib, sys, torch, dwp_init, dwp_init.registry
dwp_init.registry.REGISTRY = pathlib.Path(sys.argv[1])
torch.manual_seed(0)  # because a draw keeps the response of the weight before
model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 7), torch.nn.Conv2d(8, 4, 7, groups=2))
dwp_init.apply_(model, sys.argv[2], seed=3)
for layer in model:
    print(hashlib.sha256(str(layer.weight.tolist()).encode()).hexdigest())
"""


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of every upload by huggingface_hub
def test_from_a_recipe_to_a_network(
    hub: LocalHub, endpoint: str, own_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    runs = tmp_path / "runs"
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(runs), "scale_mixture_7x7.name=smoke-7x7"]) == 0
    folder = runs / "scale_mixture_7x7" / "prior"
    assert main(["publish", str(folder), "--repo", REPO]) == 1  # synthetic
    assert main(["publish", str(folder), "--repo", REPO, "--allow-synthetic", "--push", "--pin"]) == 0
    assert b"synthetic" in hub.repos[REPO].tree("v1")["README.md"].data
    assert json.loads(own_registry.read_text())["smoke-7x7"]["revision"] == hub.repos[REPO].tags["v1"]
    hub.clear()

    def weights(prior: str, cache: str) -> str:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path / cache), "PYTHONPATH": path}
        del env["HF_TOKEN"]
        command = [sys.executable, "-c", APPLY, str(own_registry), prior]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    expected = weights(str(folder), "none")
    assert len(expected.split()) == 2 and hub.requests() == []
    assert weights(f"{REPO}@v1", "by-repository") == expected
    assert len(hub.requests()) == 6  # what each of two files is, then those of the client
    hub.clear()
    assert weights("smoke-7x7", "by-name") == expected
    assert len(hub.requests()) == 6
    hub.clear()
    assert weights("smoke-7x7", "by-name") == expected
    assert hub.requests() == []
    assert weights(f"{REPO}@v1", "by-repository") == expected
    assert len(hub.requests()) == 1
