import math
from collections.abc import Callable

import pytest
import torch

from dwp_init import Gaussian, KernelDensity, KernelVAE
from tests.training.fits.common import noise as kernels
from training.fits.evaluate import SCALES, best_scale, evaluate_priors, transposed
from training.fits.statistics import sample_statistics


def test_priors_are_rows_of_what_they_are_like(
    gaussian: Callable[..., Gaussian], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fits.evaluate.sampling_seconds", lambda prior, noise: (prior.family, noise))
    priors = {"g": gaussian(3), "k": KernelDensity((1, 3, 3), 30).fit_(kernels(30).float())}
    rows = evaluate_priors(priors, kernels(100, seed=1).float(), kernels(50, seed=2).float())
    assert [row["prior"] for row in rows] == ["(the kernels)", "g", "k", "k, noise=False"]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [row["kernels"] for row in rows] == ["", 50, 50, ""]
    assert [row["seconds_per_100000"] for row in rows] == ["", ("gaussian", True), ("kde", True), ("kde", False)]
    statistics = sample_statistics(priors["k"], kernels(100, seed=1).float(), kernels(50, seed=2).float())
    for row, label in zip((rows[0], *rows[2:]), ("real", "drawn", "mean"), strict=True):
        assert row["mmd2"] == statistics[label]["mmd2"]
        lags = statistics[label]["autocorrelation"]
        assert row["autocorrelation (0,1) (1,0) (1,1) (0,2) (2,0)"] == " ".join(map(str, lags.values()))
        assert row["norm_5_50_95"] == " ".join(map(str, statistics[label]["norm_5_50_95"]))


STANDARD = Gaussian((1, 3, 3))  # N(0, I) before a fit


def test_shapes_alone_are_compared_at_the_best_scale(capsys: pytest.CaptureFixture) -> None:
    """Of N(0, I) and kernels ten times as large, s is their root mean square, and log p that of N(0, s² I)."""
    train, held_out = (10 * kernels(n, seed=n).float() for n in (300, 100))
    (_, given), (real, best) = (evaluate_priors({"g": STANDARD}, train, held_out, scale=scale) for scale in SCALES)
    assert "draws of 'g' have a root mean square of 1.00" in capsys.readouterr().out
    s = train.square().mean().sqrt().item()
    assert best["scale"] == pytest.approx(s, rel=1e-3) == best_scale(STANDARD, train) and given["scale"] == 1
    for row, scale in ((given, 1.0), (best, s)):
        expected = torch.distributions.Normal(0, scale).log_prob(held_out).sum((1, 2, 3)).mean().item()
        assert row["log_prob"] == pytest.approx(expected, abs=2e-3)
    assert best["log_prob"] > given["log_prob"] + 300 and best["rms"] == pytest.approx(s, rel=0.02)
    assert real["rms"] == pytest.approx(held_out.square().mean().sqrt().item(), rel=1e-3)


@pytest.mark.parametrize(("factor", "warned"), [(1.1, False), (0.9, False), (1.35, True), (0.7, True)])
def test_scales_far_apart_are_warned_of(factor: float, warned: bool, capsys: pytest.CaptureFixture) -> None:
    sets = [factor * kernels(n, seed=n).float() for n in (300, 100)]
    evaluate_priors({"g": STANDARD}, *sets)
    assert ("warning: draws of 'g'" in capsys.readouterr().out) == warned
    evaluate_priors({"g": STANDARD}, *sets, scale="best")
    assert not capsys.readouterr().out


def test_the_bound_of_a_vae_moves_with_the_scale() -> None:
    """Kernels s times as large have log p, ELBO and quadrature lower by 9 · log s, up to the search of s."""
    torch.manual_seed(0)
    prior = KernelVAE((1, 3, 3), latent_dim=2, hidden=8)
    sets = [prior.sample(n, torch.Generator().manual_seed(n)) for n in (200, 100)]
    (_, one, _), (_, large, _) = (
        evaluate_priors({"v": prior}, *(factor * part for part in sets), samples=20, scale="best")
        for factor in (1, 100)
    )
    assert large["scale"] == pytest.approx(100 * one["scale"], rel=2e-3)
    for key in ("log_prob", "elbo", "by_quadrature"):
        assert large[key] == pytest.approx(one[key] - 9 * math.log(100), abs=0.05)


def test_priors_of_another_kernel_shape(gaussian: Callable[..., Gaussian]) -> None:
    sets = [kernels(50).float(), kernels(50).float()]
    with pytest.raises(ValueError, match=r"'b' is a prior over \(2, 3, 3\) kernels, the file holds \(1, 3, 3\)"):
        evaluate_priors({"a": gaussian(3), "b": gaussian(3, 2)}, *sets)


def test_a_transposed_table_has_a_row_per_figure() -> None:
    rows = [{"prior": "a", "x": 1, "y": 2}, {"prior": "b", "x": 3, "y": ""}]
    assert transposed(rows) == [{"prior": "x", "a": 1, "b": 3}, {"prior": "y", "a": 2, "b": ""}]
