"""Normalizing flows."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dwp_init
from dwp_init import load_prior, save_prior
from dwp_init.priors import Flow
from tests.priors.families import normal, perturbed, seeded


@pytest.mark.parametrize("coupling", [False, True])
@pytest.mark.parametrize("network", ["maf", "nsf"])
def test_a_flow_goes_there_and_back(network, coupling):
    torch.manual_seed(0)
    prior = Flow((1, 2, 2), network, transforms=2, hidden=8, coupling=coupling).double()
    prior = perturbed(prior, normal(80, 4) @ normal(4, 4, seed=1), 0.2)
    kernels = prior.sample(500, seeded())
    base = torch.randn(500, 4, generator=seeded(), dtype=torch.float64)
    white = prior.whitening(kernels.flatten(1))
    torch.testing.assert_close(prior.flow()(white), base, rtol=0, atol=1e-5)
    assert (white - base).abs().mean() > 0.05
    assert prior.log_prob(kernels).isfinite().all()


def without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    return pytest.raises(ImportError, match=r"a flow prior needs the library zuko \(.*pip install zuko")


def test_a_flow_without_zuko_says_what_to_install(monkeypatch, tmp_path):
    folder = save_prior(Flow((1, 3, 3), transforms=1, hidden=4), tmp_path / "flow")
    with without_zuko(monkeypatch):
        Flow((1, 3, 3))
    with without_zuko(monkeypatch):
        load_prior(folder)


def test_importing_dwp_init_needs_no_zuko():
    script = """
import sys
import dwp_init, dwp_init.cli
assert "zuko" not in sys.modules
sys.modules["zuko"] = None
dwp_init.apply_(dwp_init.initialize.nn.Conv2d(1, 2, 3), dwp_init.Autoregressive((1, 3, 3), hidden=4))
"""
    root = Path(dwp_init.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "glow"}, "network must be one of 'maf', 'nsf'; got 'glow'"),
        ({"kernel_shape": (1, 1, 1)}, r"a flow needs kernels of 2 numbers or more; got kernel_shape \(1, 1, 1\)"),
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("transforms", "hidden") for value in (0, 2.0, True, "4")),
        ({"transforms": 101}, "transforms must be a whole number from 1 to 100; got 101"),
        ({"hidden": 2**20}, r"transforms=3 and hidden=1048576 over kernels of 9 numbers has up to \d+ weights; at"),
        ({"kernel_shape": (1, 999, 999)}, r"over kernels of 998001 numbers has up to \d+ weights; at most 134217728"),
    ],
)  # fmt: skip
def test_flow_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Flow(**{"kernel_shape": (1, 3, 3), **arguments})


@pytest.mark.parametrize("value", [1, "no", None])
def test_coupling_must_be_a_bool(value):
    with pytest.raises(TypeError, match=f"coupling must be True or False; got {value!r}"):
        Flow((1, 3, 3), coupling=value)
