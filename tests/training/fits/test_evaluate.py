from collections.abc import Callable

import pytest

from dwp_init import Gaussian, KernelDensity
from tests.training.fits.common import noise as kernels
from training.fits.evaluate import evaluate_priors, transposed
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


def test_priors_of_another_kernel_shape(gaussian: Callable[..., Gaussian]) -> None:
    sets = [kernels(50).float(), kernels(50).float()]
    with pytest.raises(ValueError, match=r"'b' is a prior over \(2, 3, 3\) kernels, the file holds \(1, 3, 3\)"):
        evaluate_priors({"a": gaussian(3), "b": gaussian(3, 2)}, *sets)


def test_a_transposed_table_has_a_row_per_figure() -> None:
    rows = [{"prior": "a", "x": 1, "y": 2}, {"prior": "b", "x": 3, "y": ""}]
    assert transposed(rows) == [{"prior": "x", "a": 1, "b": 3}, {"prior": "y", "a": 2, "b": ""}]
