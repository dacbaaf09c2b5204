import csv
import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dwp_init import Autoregressive, Gaussian, GaussianMixture, KernelDensity, KernelVAE, Prior, save_prior
from training.engine.stage import Context
from training.experiments.costs import Decoding, decoding_flops
from training.experiments.measure import extra_memory

D = 9
HIDDEN, HALF, MIXTURES, LATENT = 6, 3, 2, 4
LAYERS = LATENT * HIDDEN + HIDDEN * HIDDEN + HIDDEN * 2 * D
FLOPS: dict[str, tuple[Callable[[], Prior], Callable[[int], int]]] = {
    "gaussian": (lambda: Gaussian((1, 3, 3)), lambda n: 2 * n * D * D),
    "channels": (lambda: Gaussian((2, 3, 3)), lambda n: 2 * n * (2 * D) ** 2),
    "kde": (lambda: KernelDensity((1, 3, 3), 5), lambda n: 2 * n * D * D),
    "vae": (lambda: KernelVAE((1, 3, 3), latent_dim=LATENT, hidden=HIDDEN), lambda n: 2 * n * (LAYERS + D * D)),
    "autoregressive": (
        lambda: Autoregressive((1, 3, 3), HIDDEN, MIXTURES),
        lambda n: 2 * n * (D * (HIDDEN * HALF + HALF * 3 * MIXTURES) + D * D),
    ),
}


@pytest.mark.parametrize("n", [1, 100, 10_000])
@pytest.mark.parametrize("name", FLOPS)
def test_flops_of_known_matrix_products(name: str, n: int) -> None:
    make, expected = FLOPS[name]
    prior = make().eval()
    prior.chunk = 32  # so that 128 kernels are drawn and the rest is in proportion
    assert decoding_flops(prior, n) == expected(n)


def test_flops_of_a_mixture_are_those_of_a_gaussian_and_its_factors() -> None:
    """Factors and means of the components are returned to kernels once: 2 (components d³ + components d²)."""
    prior = GaussianMixture((1, 3, 3), components=4)
    assert decoding_flops(prior, 1000) == 2 * 1000 * D * D + 2 * 4 * (D**3 + D**2)


@pytest.fixture
def fits(tmp_path: Path) -> tuple[str, ...]:
    """Two finished fits."""
    kernels = torch.randn(50, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    priors = {"first": Gaussian((1, 3, 3)).fit_(kernels), "second": KernelDensity((1, 3, 3), 50).fit_(kernels)}
    for name, prior in priors.items():
        prior.details = {"name": f"the {name}"}
        save_prior(prior, tmp_path / name / "prior")
    return tuple(priors)


def decode(out: Path, stage: Decoding) -> list[dict[str, Any]]:
    (out / "decoding").mkdir()
    return stage.run(out / "decoding", Context(out=out))["rows"]


def test_decoding_times_become_shares(
    fits: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Per round kaiming, a product, and each prior with a product after it; here in seconds that are known."""
    times = [*(0.1, 9.0, 1.0, 9.0, 4.0, 9.0), *(0.2, 9.0, 2.0, 0.5, 4.0, 9.0), *(0.6, 9.0, 6.0, 9.0, 3.0, 9.0)]
    clock = itertools.chain(times)

    def seconds(function: Callable[[], object]) -> float:
        function()
        return next(clock)

    monkeypatch.setattr("training.experiments.costs.seconds", seconds)
    n, size = 10_000_000 // (2 * D * D), 100
    rows = decode(tmp_path, Decoding(fits, kernels=n, repeats=3, size=size))
    assert list(clock) == []
    peak = 2 * size**3 / 0.5
    for row, name, family, measured in zip(
        rows, ("first", "second"), ("gaussian", "kde"), ((1.0, 2.0, 6.0), (3.0, 4.0, 4.0)), strict=True
    ):
        median, flops = statistics.median(measured), 2 * n * D * D
        assert (row["prior"], row["family"], row["kernels"]) == (f"the {name}", family, n)
        assert (row["seconds"], row["seconds_min"], row["seconds_max"]) == (median, measured[0], measured[2])
        assert row["over_kaiming"] == median / 0.2
        assert row["gflop"] == round(flops / 1e9, 3) == 0.01
        assert row["share_of_peak"] == round(flops / median / peak, 4) > 0
        assert row["best_share_of_peak"] == round(flops / measured[0] / peak, 4)
        assert row["peak_gflop_per_second"] == round(peak / 1e9, 1)
        assert row["threads"] == torch.get_num_threads()
    with (tmp_path / "decoding" / "record" / "decoding.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in rows]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_decoding_takes_time(fits: tuple[str, ...], tmp_path: Path) -> None:
    rows = decode(tmp_path, Decoding(fits, kernels=50_000, repeats=2, size=64))
    for row in rows:
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"] < 60
        assert row["over_kaiming"] > 0 and row["best_share_of_peak"] >= row["share_of_peak"] > 0


@pytest.mark.parametrize("field", ["kernels", "repeats", "size"])
def test_counts_of_decoding(field: str, fits: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{field} must be 1 or more; got 0"):
        decode(tmp_path, Decoding(fits, **{field: 0}))


def test_memory_is_measured_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(OSError, match="there is no /proc/self/clear_refs, by which memory is measured; run this on"):
        extra_memory(list)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_extra_memory_is_what_a_call_needs() -> None:
    """In a process of its own, because freed memory would be used again in this one."""
    size = 64 * 2**20
    code = "import torch; from training.experiments.costs import extra_memory as extra"
    code += f"; print(extra(lambda: torch.ones({size}, dtype=torch.uint8)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) == pytest.approx(size, rel=0.1)
