import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dwp_init import Gaussian, KernelVAE
from tests.training.fits.common import noise as kernels
from training.fits.statistics import compare, describe, sample_statistics

DESCRIPTION = [
    *("rms", "norm_5_50_95", "roughness", "autocorrelation"),
    *("variance_shares", "components_90_95_99", "participation_ratio"),
]
COMPARISON = [
    *("frechet", "fidelity", "coverage", "diversity"),
    *("fidelity_real", "fidelity_noise", "fidelity_interpolated", "diversity_real"),
    *("recall_real", "recall_samples", "accuracy", "accuracy_deviation", "asymmetry", "mmd2", "compared", "tested"),
]


def exactly(n: int, loc: Tensor, scale: Tensor, seed: int, channels: int = 1) -> Tensor:
    """Kernels 2×2 whose mean and covariance are just these."""
    flat = kernels(n, 2, seed, channels).flatten(1)
    flat = flat - flat.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(flat.T)), flat.T, upper=False).T
    return (loc + white * scale).view(n, channels, 2, 2)


def frechet(a: Tensor, b: Tensor) -> float:
    return compare(a, a, b)["frechet"]


def points(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def lags(values: Tensor) -> dict[str, float]:
    return describe(values)["autocorrelation"]


CHECKERS = (torch.arange(5)[:, None] + torch.arange(5)) % 2 * 2.0 - 1
GAIN = 1 + torch.arange(100.0).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "roughness", "tolerance"),
    [
        (kernels(20_000, 7).float(), 1, 0.01),
        (GAIN.expand(100, 2, 5, 5), 0, 0),
        (GAIN * CHECKERS, 2, 1e-9),
        (GAIN * CHECKERS[0].expand(5, 5), 1, 1e-9),
    ],
    ids=["white noise", "flat", "checkers", "stripes"],
)
def test_roughness(values: Tensor, roughness: float, tolerance: float) -> None:
    assert describe(values)["roughness"] == pytest.approx(roughness, abs=tolerance)


def test_scale_of_kernels() -> None:
    found = describe(torch.arange(101.0).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    assert found["norm_5_50_95"] == pytest.approx([10, 100, 190])
    assert found["rms"] == pytest.approx((100 * 201 / 6) ** 0.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_has_no_autocorrelation_and_a_flat_spectrum(channels: int) -> None:
    n, dim = 20_000, channels * 25
    found = describe(kernels(n, 5, channels=channels))
    assert list(found) == DESCRIPTION
    pairs = {"0,1": 20, "1,0": 20, "1,1": 16, "0,2": 15, "2,0": 15}
    assert list(found["autocorrelation"]) == list(pairs)
    for lag, value in found["autocorrelation"].items():
        assert abs(value) < 4 / (n * channels * pairs[lag]) ** 0.5
    assert found["participation_ratio"] == pytest.approx(dim / (1 + dim / n), rel=2e-3)
    assert found["variance_shares"] == pytest.approx([1 / dim] * 5, rel=0.15)


def test_spectrum_of_a_known_covariance() -> None:
    flat = describe(exactly(100, torch.zeros(20), torch.ones(20), seed=0, channels=5))
    assert flat["participation_ratio"] == pytest.approx(20)
    assert flat["variance_shares"] == pytest.approx([0.05] * 5)
    for seed in range(10):
        equal = exactly(100, torch.zeros(20), torch.ones(20), seed, channels=5)
        assert describe(equal)["components_90_95_99"] == [18, 19, 20]
    steep = describe(exactly(100, torch.ones(4), torch.tensor([0.15, 0.5, 0.8, 0.1]).sqrt(), seed=0))
    assert steep["variance_shares"] == pytest.approx([0.8 / 1.55, 0.5 / 1.55, 0.15 / 1.55, 0.1 / 1.55])
    assert steep["components_90_95_99"] == [3, 4, 4]
    assert steep["participation_ratio"] == pytest.approx(1.55**2 / (0.8**2 + 0.5**2 + 0.15**2 + 0.1**2))


def test_one_pattern_with_a_gain_has_one_component() -> None:
    found = describe(7 + GAIN * CHECKERS)
    assert found["participation_ratio"] == pytest.approx(1)
    assert found["variance_shares"] == pytest.approx([1, 0, 0, 0, 0], abs=1e-12)
    assert found["components_90_95_99"] == [1, 1, 1]
    expected = {"0,1": -1, "1,0": -1, "1,1": 1, "0,2": 1, "2,0": 1}
    assert found["autocorrelation"] == pytest.approx(expected)


def test_autocorrelation_of_a_moving_average_is_a_half_along_it() -> None:
    noise = kernels(10_000, 6)
    along_x, along_y = noise[..., 1:] + noise[..., :-1], noise[:, :, 1:] + noise[:, :, :-1]
    mean = 100 * CHECKERS
    assert lags(along_x[:, :, 1:] + mean) == pytest.approx(
        {"0,1": 0.5, "1,0": 0, "1,1": 0, "0,2": 0, "2,0": 0}, abs=0.02
    )
    assert lags(along_y[..., 1:] + mean) == pytest.approx(
        {"0,1": 0, "1,0": 0.5, "1,1": 0, "0,2": 0, "2,0": 0}, abs=0.02
    )


def test_what_a_kernel_is_too_small_for_is_none() -> None:
    assert [lag for lag, value in lags(kernels(9, 2)).items() if value is None] == ["0,2", "2,0"]
    assert all(value is not None for value in lags(kernels(9, 3)).values())
    pixel = describe(kernels(9, 1))
    assert pixel["roughness"] is None and set(pixel["autocorrelation"].values()) == {None}
    still = kernels(9, 3) * torch.tensor([0.0, 0, 1]) + 0.1
    assert lags(still)["0,2"] is None and lags(still)["1,0"] is not None


def test_frechet_distance_of_diagonal_gaussians() -> None:
    """‖μ - μ'‖² + Σ (σ - σ')²."""
    loc = torch.tensor([[0, 1, 2, -3], [1, 1, 0, -1]], dtype=torch.float64)
    scale = torch.tensor([[1, 2, 3, 0.5], [2, 2, 1, 0.1]], dtype=torch.float64)
    a, b = (exactly(100, loc[part], scale[part], seed=part) for part in (0, 1))
    expected = (loc[0] - loc[1]).square().sum() + (scale[0] - scale[1]).square().sum()
    assert frechet(a, b) == pytest.approx(expected.item(), abs=1e-9)
    assert frechet(b, a) == pytest.approx(expected.item(), abs=1e-9)
    assert all(0 <= frechet(part, part.flip(0)) < 1e-9 for part in (kernels(50, seed=seed) for seed in range(10)))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (0.5, 0.3)])
def test_frechet_distance_to_a_shifted_and_scaled_gaussian(shift: float, scale: float) -> None:
    """‖m‖² + d (s - 1)² from drawn kernels, of several channels."""
    real, samples = kernels(50_000, 2, 0, channels=3), shift + scale * kernels(50_000, 2, 1, channels=3)
    expected = 12 * shift**2 + 12 * (scale - 1) ** 2
    assert frechet(samples, real) == pytest.approx(expected, rel=0.02, abs=0.01)


def test_frechet_distance_of_gaussians_that_do_not_commute() -> None:
    """tr (A B)^½ of two positive 2×2 blocks is √(tr AB + 2 √det AB)."""
    a, b = kernels(50, 2, 1), kernels(80, 2, 2) @ torch.tensor([[1.0, 0.9], [0, 0.2]], dtype=torch.float64)
    a[:, :, 1], b[:, :, 1] = 0, 0
    cov_a, cov_b = (torch.cov(part[:, 0, 0].T) for part in (a, b))
    product = cov_a @ cov_b
    cross = (product.trace() + 2 * product.det().sqrt()).sqrt()
    means = (a.mean(0) - b.mean(0)).square().sum()
    expected = means + cov_a.trace() + cov_b.trace() - 2 * cross
    assert frechet(a, b) == pytest.approx(expected.item(), abs=1e-6)


def test_figures_counted_by_hand() -> None:
    """Samples 3 and 4, training kernels 0 and 5, held-out kernels 0 and 1; six distances whose lower median is 2.

    The midpoint, 2.5, gets the root mean square of 0 and 5.
    """
    found = compare(points(3, 4), points(0, 5), points(0, 1))
    assert list(found) == COMPARISON
    noise = 12.5**0.5 * torch.randn(2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    similar = {distance: math.exp(-(distance**2) / 8) for distance in (1, 2, 3, 4)}
    within, across = similar[1], (2 * similar[3] + similar[2] + similar[4]) / 4
    expected = {"frechet": 9, "fidelity": 1.5, "coverage": 2.5, "diversity": 1}
    expected |= {
        "fidelity_interpolated": 5 - 12.5**0.5,
        "fidelity_noise": torch.minimum(noise.abs(), (noise - 5).abs()).mean().item(),
    }
    expected |= {"fidelity_real": 0.5, "diversity_real": 5, "compared": 2, "tested": 2}
    expected |= {"recall_real": 1, "recall_samples": 1, "accuracy": 1, "asymmetry": 0}
    expected |= {"accuracy_deviation": (1 - 1 / 3) / (1 / 8) ** 0.5, "mmd2": 2 * within - 2 * across}
    assert found == pytest.approx(expected)


def test_equally_near_kernels_share_the_vote() -> None:
    """Each of 0, 0, 1, 1 has one equal of its own set and two of the other."""
    found = compare(points(0, 1, 0, 1), points(5, 6), points(0, 0, 1, 1))
    assert found["recall_real"] == found["recall_samples"] == pytest.approx(1 / 3)
    copies = compare(kernels(50), kernels(50, seed=1), kernels(50))
    assert copies["recall_real"] == copies["recall_samples"] == 0 and copies["accuracy_deviation"] < -6


@pytest.mark.parametrize("shape", [{"size": 3}, {"size": 2, "channels": 3}])
def test_samples_of_the_same_law(shape: dict[str, int]) -> None:
    found = compare(*(kernels(1000, seed=seed, **shape) for seed in range(3)))
    assert abs(found["accuracy_deviation"]) < 4 and abs(found["asymmetry"]) < 4
    error = 4 * (0.3 / 1000) ** 0.5
    assert found["recall_real"] == pytest.approx(0.5, abs=error)
    assert found["recall_samples"] == pytest.approx(0.5, abs=error)
    assert found["mmd2"] == pytest.approx(0, abs=2e-3)
    for figure in ("fidelity", "coverage", "fidelity_real", "diversity_real"):
        assert found[figure] == pytest.approx(found["diversity"], rel=0.05)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Many small calls are faster without waiting for a second thread on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_standard_errors_are_those_of_random_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    values = kernels(120) * torch.tensor([1, 2, 3])
    found = []
    for _ in range(400):
        real, samples = values[torch.randperm(120, generator=generator)].split(60)
        found.append(compare(samples, samples, real))
    for figure in ("accuracy_deviation", "asymmetry"):
        deviations = torch.tensor([row[figure] for row in found])
        assert deviations.mean().abs() < 4 / 400**0.5
        assert deviations.std().item() == pytest.approx(1, abs=4 / 800**0.5)
    mmd2 = torch.tensor([row["mmd2"] for row in found])
    assert mmd2.mean().abs() < 4 * mmd2.std() / 400**0.5


def test_a_collapsed_sampler_is_faithful_but_neither_diverse_nor_covering() -> None:
    train, held_out = kernels(500, seed=1), kernels(500, seed=2)
    samples = train[:5].repeat(100, 1, 1, 1) + 0.01 * kernels(500)
    found = compare(samples, train, held_out)
    assert found["fidelity"] < 0.05 * found["fidelity_real"]
    assert found["diversity"] < 0.05 * found["diversity_real"]
    assert found["coverage"] > 1.3 * found["fidelity_real"]
    assert found["recall_samples"] > 0.99 and found["accuracy_deviation"] > 4 and found["mmd2"] > 0.01
    same = compare(train[:1].repeat(500, 1, 1, 1), train, held_out)
    assert same["fidelity"] == same["diversity"] == 0 and same["recall_samples"] == pytest.approx(1)
    assert all(math.isfinite(value) for value in same.values())


def test_structured_kernels_are_nearer_to_each_other_than_noise_and_midpoints_are() -> None:
    patterns = kernels(3, 5, seed=4)
    train, held_out = (patterns[torch.arange(300) % 3] + 0.1 * kernels(300, 5, seed=seed) for seed in (1, 2))
    found = compare(held_out, train, held_out)
    assert found["fidelity"] == found["fidelity_real"] < 0.3 * found["fidelity_noise"]
    assert 0.5 < found["fidelity_interpolated"] / found["fidelity_real"] < 1  # of 0 and 150, of one pattern
    apart = compare(held_out, train[:299], held_out)  # of 0 and 149, of two patterns
    assert 2 * apart["fidelity_real"] < apart["fidelity_interpolated"] < apart["fidelity_noise"]
    found = compare(points(1, 2), points(3, -3), points(1, 2))
    assert found["fidelity_interpolated"] == 3  # the midpoint is 0


def test_too_wide_and_too_narrow_samples_have_lopsided_recalls() -> None:
    train, held_out = kernels(500, 5, seed=1), kernels(500, 5, seed=2)
    wide, narrow = (compare(scale * kernels(500, 5), train, held_out) for scale in (2, 0.5))
    assert wide["recall_real"] > 0.95 and wide["recall_samples"] < 0.2 and wide["asymmetry"] > 4
    assert narrow["recall_real"] < 0.2 and narrow["recall_samples"] > 0.95 and narrow["asymmetry"] < -4
    assert min(wide["mmd2"], narrow["mmd2"]) > 0.01
    assert wide["fidelity"] > 1.2 * wide["fidelity_real"]


def test_samples_elsewhere_are_told_apart() -> None:
    found = compare(3 + kernels(300, seed=0), kernels(300, seed=1), kernels(300, seed=2))
    assert found["recall_real"] > 0.99 and found["recall_samples"] > 0.99 and abs(found["asymmetry"]) < 4
    assert found["accuracy_deviation"] > 10 and found["mmd2"] > 0.3
    assert found["frechet"] == pytest.approx(81, rel=0.1)


def test_figures_grow_with_the_kernels_scale_or_not_at_all() -> None:
    sets = [kernels(100, seed=seed) for seed in range(3)]
    before, after = compare(*sets), compare(*(1e-3 * part for part in sets))
    powers = {"frechet": 2, **{name: 1 for name in before if name.startswith(("fidelity", "coverage", "diversity"))}}
    assert after == pytest.approx({key: value * 1e-3 ** powers.get(key, 0) for key, value in before.items()})


def test_order_makes_no_difference() -> None:
    sets = [kernels(90, seed=0), kernels(70, seed=1), kernels(80, seed=2)]
    sets[0][:20] = sets[0][20:40]
    turned = [part.flip(0) for part in sets]
    for part, other in zip(sets, turned, strict=True):
        assert _flat(describe(other)) == pytest.approx(_flat(describe(part)))
    assert compare(turned[0], sets[1], turned[2], most=90)["compared"] == 70
    whole = [part[:70] for part in sets]
    assert compare(*(part.flip(0) for part in whole)) == pytest.approx(compare(*whole))


def test_many_kernels_are_thinned_at_random_but_repeatably() -> None:
    sets = [kernels(300, seed=0), kernels(200, seed=1), kernels(150, seed=2)]
    state = torch.get_rng_state()
    first, again = (compare(*sets, most=100) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state) and first == again
    assert first["compared"] == first["tested"] == 100
    every = compare(*sets)
    assert first["coverage"] != every["coverage"] and first["frechet"] == every["frechet"]
    assert (every["compared"], every["tested"]) == (200, 150)
    assert first["fidelity_real"] > every["fidelity_real"]


def test_as_many_samples_as_training_kernels_are_compared() -> None:
    """With all 4000, held-out kernels would be nearer to the samples than to the training kernels."""
    found = compare(kernels(4000, seed=0), kernels(200, seed=1), kernels(200, seed=2))
    assert found["coverage"] == pytest.approx(found["fidelity_real"], rel=0.05)
    assert found["diversity"] == pytest.approx(found["diversity_real"], rel=0.05)


@pytest.mark.parametrize("size", [1, 3])
def test_two_kernels_of_each_set_are_enough(size: int) -> None:
    sets = [kernels(2, size, seed) for seed in range(3)]
    assert all(math.isfinite(value) for value in compare(*sets).values())
    found = describe(sets[0])
    assert found["participation_ratio"] == pytest.approx(1) and found["components_90_95_99"] == [1, 1, 1]
    json.dumps(found, allow_nan=False)


BROKEN = kernels(10)
BROKEN[[2, 5], 0, 1] = torch.tensor([math.nan, math.inf], dtype=torch.float64)[:, None]
SAME = torch.full((5, 1, 3, 3), 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: describe(SAME), "all 5 kernels are the same"),
        (lambda: describe(kernels(1)), "kernels holds 1 kernels; .* 2 or more"),
        (lambda: describe(kernels(9)[:, 0, 0]), r"kernels must have shape \(n, c, \*size\); got \(9, 3\)"),
        (lambda: describe(kernels(9)[..., :0]), r"got \(9, 1, 3, 0\)"),
        (lambda: describe(BROKEN), "2 of 10 kernels of kernels hold NaN or infinity"),
        (lambda: compare(BROKEN, kernels(9), kernels(9)), "2 of 10 kernels of samples hold NaN"),
        (lambda: compare(kernels(9), kernels(1), kernels(9)), "train holds 1 kernels"),
        (lambda: compare(kernels(9), kernels(9), kernels(0)), "held_out holds 0 kernels"),
        (lambda: compare(SAME, kernels(9), SAME), "the same: their median distance is 0"),
        (lambda: compare(kernels(9), kernels(9), kernels(9), most=1), "2 or more; got 1"),
        (
            lambda: compare(kernels(9), kernels(9, 2), kernels(9)),
            r"one shape; got samples \(1, 3, 3\), train \(1, 2, 2\), held_out \(1, 3, 3\)",
        ),
    ],
)
def test_helpful_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def _flat(row: dict[str, Any]) -> list[float]:
    """The numbers of a row of statistics."""
    parts = [list(value.values()) if isinstance(value, dict) else value for value in row.values()]
    return [number for part in parts for number in (part if isinstance(part, list) else [part])]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_prior_that_draws_the_kernels_own_law_looks_like_them(
    channels: int, gaussian: Callable[..., Gaussian]
) -> None:
    prior = gaussian(3, channels)
    real = [prior.sample(1000, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    found = sample_statistics(prior, *real, n=1000)
    assert list(found) == ["real", "drawn"]
    assert [*found["real"]] == [*found["drawn"]] == DESCRIPTION + COMPARISON
    for row in found.values():
        assert abs(row["accuracy_deviation"]) < 4 and abs(row["asymmetry"]) < 4
        assert row["fidelity"] == pytest.approx(found["real"]["fidelity_real"], rel=0.05)
        assert row["coverage"] == pytest.approx(found["real"]["coverage"], rel=0.05)
    assert found["drawn"]["rms"] == pytest.approx(found["real"]["rms"], rel=0.05)
    assert found["real"]["fidelity"] == found["real"]["coverage"] == found["drawn"]["fidelity_real"]
    assert found["real"]["diversity"] == found["drawn"]["diversity_real"]


def test_a_prior_with_noise_is_described_without_it_too() -> None:
    torch.manual_seed(0)
    vae = KernelVAE((1, 3, 3), latent_dim=2, hidden=8).eval()
    sets = (kernels(300, seed=1).float(), kernels(200, seed=2).float())
    found = sample_statistics(vae, *sets, n=400)
    assert list(found) == ["real", "drawn", "mean"] and found == sample_statistics(vae, *sets, n=400)
    mean, drawn = found["mean"], found["drawn"]
    assert mean["rms"] < drawn["rms"] and mean["diversity"] < 0.5 * drawn["diversity"]
    assert mean["participation_ratio"] < 3 < drawn["participation_ratio"]
    assert (mean["compared"], mean["tested"]) == (300, 200)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    numbers = [number for row in found.values() for number in _flat(row) if isinstance(number, float)]
    assert numbers == [float(f"{number:.4g}") for number in numbers]
