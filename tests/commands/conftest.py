"""A current folder of its own for each test of a command, with a registry of two priors, and a Hub with one."""

import hashlib
import itertools
import json
import sys

import pytest

from dwp_init import SETS, Gaussian, KernelVAE, MixtureByDepth, PriorSet, cli, registry, save_prior
from dwp_init.folder import read_files

DETAILS = {
    "name": "notmnist-7x7",
    "license": "MIT",
    "source": {"dataset": "notMNIST", "networks": 8, "filters": [256, 512]},
    "metrics": {"log_prob": 107.61234567, "none": None},
    "created_with": {"torch": "2.6", "evil\x1b[2J": "\x1b[31m"},
}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A current folder of its own, and a registry of a VAE for 7×7 and a Gaussian for 3×3 kernels."""
    vae, gaussian = KernelVAE((1, 7, 7), latent_dim=2, hidden=4), Gaussian((1, 3, 3))
    vae.details = DETAILS
    entries = {}
    for name, prior, more in [("notmnist-7x7", vae, {"log_prob": 107.61}), ("gauss-3x3", gaussian, {})]:
        folder = save_prior(prior, tmp_path / "bundled" / name)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        about = {"kernel_shape": prior.kernel_shape, "family": prior.family, "source": "notMNIST", "license": "MIT"}
        entries[name] = {**about, **more, "sha256": digests}
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.json")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    registry.registry.cache_clear()
    yield tmp_path / "here"
    registry.registry.cache_clear()


@pytest.fixture
def run(capsys):
    """Runs a command line that must succeed, or must fail with one line on stderr; returns what it printed."""

    def run(*arguments, status=0):
        found = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == status, err
        if status:
            assert out == "" and err.startswith("error: ") and "Traceback" not in err
        else:
            assert err == ""
        return out + err

    return run


@pytest.fixture
def module(workplace):
    """Writes a Python module into the current folder; returns its name, a new one every time."""

    def write(text):
        name = f"user_module_{next(_numbers)}"
        (workplace / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + text)
        return name

    return write


@pytest.fixture
def at_hub(hub, endpoint, workplace):
    """A Hub with one prior, as HF_ENDPOINT would name it."""
    mine = Gaussian((1, 3, 3))
    files = read_files(save_prior(mine, workplace / "mine"))
    card = b"---\ntags: [dwp-prior, kernel-3x3, family-gaussian]\n---\n"
    return hub, hub.add_repo("user/mine", {**files, "README.md": card}, tag="v1")


@pytest.fixture
def family(workplace, monkeypatch):
    """A set of two priors, of which one depends on the depth and has three channels."""
    stem = MixtureByDepth((3, 5, 5), (0.0, 1.0), (1, 1))
    stem.mixtures[0].loc.fill_(9.0)
    stem.details["metrics"] = {"log_prob": 1.26}
    folder = save_prior(stem, workplace / "stem")
    monkeypatch.setitem(SETS, "family", PriorSet(stem=(folder,), depthwise=("gauss-3x3",), name="family"))
    return folder
