"""The table of what fits are worth on networks that they hold out."""

import math
from pathlib import Path

import pytest

from dwp_init import load_prior
from tests.training.kernels.states import networks_in_a_manifest
from training.engine.records import read_table
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.unseen_networks import UnseenNetworks
from training.fits.base import fitted_prior
from training.fits.evaluate import best_scale
from training.fits.mixture import FitMixture
from training.kernels.harvested import HarvestedKernels
from training.kernels.kernelset import KernelSet


def test_a_row_for_each_fit(tmp_path: Path) -> None:
    """The kernels are white noise, which the smooth kernels of the first edition are unlike."""
    manifest = str(networks_in_a_manifest(tmp_path, license="MIT"))
    quick = {"components": (1,), "shrinkages": (300.0,), "restarts": 1}
    stages = {
        "dense": HarvestedKernels(manifest=manifest, kind="dense", size=(3, 3), test=("net1*",)),
        "depthwise": HarvestedKernels(manifest=manifest, kind="depthwise", size=(5, 5), test=("net2*",)),
        "fit_dense": FitMixture(("dense",), "of dense", **quick),
        "fit_depthwise": FitMixture(("depthwise",), "of depthwise", **quick),
        "table": UnseenNetworks(("fit_dense", "fit_depthwise"), "found"),
    }
    folders = run_stages(stages, Context(out=tmp_path / "runs"))
    dense, depthwise = read_table(folders["table"] / "record" / "found.csv")
    assert (dense["kind"], dense["held_out"], dense["fit"]) == ("dense-3x3", "net1", "of dense")
    assert (depthwise["kind"], depthwise["held_out"]) == ("depthwise-5x5", "net2")
    assert (depthwise["first_edition"], depthwise["first_log_prob"]) == ("", "")
    metrics = fitted_prior(folders["fit_dense"]).details["metrics"]
    for key in ("log_prob", "gaussian_log_prob", "white_noise_log_prob"):
        assert float(dense[key]) == metrics[key]
    assert float(dense["over_gaussian"]) == pytest.approx(metrics["log_prob"] - metrics["gaussian_log_prob"], abs=1e-3)
    assert float(dense["accuracy"]) == metrics["samples"]["drawn"]["accuracy"]
    kernels, prior = KernelSet.load(folders["dense"]), load_prior("tinyimagenet-3x3")
    assert (int(dense["fitted"]), int(dense["kernels"])) == (len(kernels.train), len(kernels.test))
    scale = best_scale(prior, kernels.train)
    expected = prior.log_prob(kernels.test / scale).mean().item() - 9 * math.log(scale)
    assert float(dense["first_log_prob"]) == pytest.approx(expected, abs=2e-3)
    assert float(dense["first_log_prob"]) < float(dense["white_noise_log_prob"]) - 1
    assert 0.3 < float(dense["first_accuracy"]) <= 1
