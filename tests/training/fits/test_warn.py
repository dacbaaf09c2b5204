import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from tests.training.fits.common import QUICKS, noise, run, write_kernels
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.fits.warn import warn_if_worse_than_noise, white_noise_log_prob
from training.kernels.kernelset import KernelSet

FEW = "is fitted to 89 kernels of 9 numbers; with fewer than 90 their covariance is poor"


@pytest.mark.parametrize("family", QUICKS)
def test_few_kernels_are_warned_of(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "few", QUICKS[family], train=89)
    assert f"warning: {QUICKS[family].name!r} {FEW}" in capsys.readouterr().out
    run(tmp_path / "enough", QUICKS[family], train=90)
    assert "covariance is poor" not in capsys.readouterr().out


def test_the_layer_with_the_fewest_kernels_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, enough = (KernelSet(noise(n).float(), *noise(20, seed=1).float().split(10), torch.zeros(10)) for n in (89, 99))
    write_kernels(tmp_path, enough)
    few.save(tmp_path / "kernels")
    (tmp_path / "kernels").rename(tmp_path / "few")
    write_kernels(tmp_path, enough)
    grid = {"components": (1,), "shrinkages": (10.0,), "restarts": 1}
    run(tmp_path, FitByDepth(needs=("kernels", "few"), name="quick", depths=(0.0, 1.0), **grid))
    assert f"warning: 'quick' {FEW}" in capsys.readouterr().out


@pytest.mark.parametrize("family", QUICKS)
def test_a_prior_that_is_worse_than_white_noise(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 12 kernels of 25 numbers, 13 directions look flat, and held-out kernels lie far out in them."""
    parts = [noise(n, size=5, seed=seed).float() for seed, n in enumerate((12, 60, 60))]
    write_kernels(tmp_path, KernelSet(*parts, torch.zeros(60)))
    metrics = fitted_prior(run(tmp_path, QUICKS[family])).details["metrics"]
    found = metrics["log_prob"]
    said = capsys.readouterr().out
    loss = white_noise_log_prob(parts[0], parts[2])
    assert metrics["white_noise_log_prob"] == loss
    assert loss == pytest.approx(-25 * (0.5 * math.log(2 * math.pi) + 0.5), abs=1) and found < loss
    assert (
        f"warning: log p of held-out kernels is {found:,} nats under {QUICKS[family].name!r}, and {loss:,} under"
        in said
    )
    assert "give more kernels, fit longer, or take another --family" in said


@pytest.mark.parametrize(("over", "warned"), [(0.0, False), (-0.01, True), (-math.inf, True), (math.nan, True)])
def test_white_noise_is_the_limit(over: float, warned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = KernelSet(3 * noise(100), noise(9), noise(50, seed=1), torch.zeros(50))
    limit = white_noise_log_prob(kernels.train, kernels.test)
    law = Normal(0.0, kernels.train.square().mean().sqrt())
    assert limit == pytest.approx(law.log_prob(kernels.test).sum((1, 2, 3)).mean().item(), abs=1e-3)
    warn_if_worse_than_noise("mine", limit + over, limit)
    assert ("warning" in capsys.readouterr().out) == warned
