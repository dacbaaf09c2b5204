"""The filters that whiten patches: against images of known covariance, and against patches themselves."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dwp_init
from dwp_init.bayes import GaussianKL, kl_from
from dwp_init.bayes.kl import entropy
from dwp_init.priors import Gaussian, PatchWhitening
from dwp_init.priors.latent import Normal
from dwp_init.priors.patches import MOST_NOISE
from tests.priors.families import seeded


def images(count: int = 200, side: int = 24, seed: int = 0) -> Tensor:
    """Returns smooth images of three channels that are partly alike."""
    noise = torch.randn(count, 3, side + 4, side + 4, generator=seeded(seed))
    smooth = F.avg_pool2d(noise, 5, 1) + 0.2 * noise[..., 2:-2, 2:-2]
    return smooth + smooth.mean(1, keepdim=True)


def fitted(*shape: int, dilation: tuple[int, int] = (1, 1)) -> PatchWhitening:
    found = PatchWhitening((3, 3, 3), span=(8, 8)).fit_(images()).shaped(shape, dilation)
    assert found is not None
    return found


def correlations(outputs: Tensor) -> Tensor:
    return torch.corrcoef(outputs.transpose(0, 1).flatten(1))


@pytest.mark.parametrize(("size", "dilation"), [((3, 3), (1, 1)), ((2, 5), (1, 1)), ((3, 3), (3, 2))])
def test_outputs_of_a_layer_are_uncorrelated_and_equally_strong(
    size: tuple[int, int], dilation: tuple[int, int]
) -> None:
    prior = fitted(3, *size, dilation=dilation)
    weight = prior.sample_layer(2 * prior.dim, seeded())
    given = images(1000, seed=1)
    outputs = F.conv2d(given / given.std((0, 2, 3), keepdim=True), weight, dilation=dilation)
    found = correlations(outputs)
    assert ((found.abs() - 0.5).abs() > 0.3).all()  # of each other, or opposites
    assert (found.abs() > 0.8).sum() == 2 * len(found) and (found < -0.8).sum() == len(found)
    power = outputs.square().mean((0, 2, 3))
    assert power.min() > 0.5 * power.max()


def test_kernels_of_one_pixel_apart_are_known() -> None:
    """Of two pixels with the correlation ρ, the sum and the difference are uncorrelated."""
    given = torch.randn(20_000, 1, 1, 2, generator=seeded())
    given[..., 1] = 0.6 * given[..., 0] + 0.8 * given[..., 1]
    prior = PatchWhitening((1, 1, 2)).fit_(given)
    weight = prior.sample_layer(4, seeded()).flatten(1)
    expected = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / torch.tensor([[3.2], [0.8]]).sqrt()
    found = torch.stack([min((w for w in s * weight), key=lambda w: (w - e).norm()) for e in expected for s in (1, -1)])
    torch.testing.assert_close(found, expected.repeat_interleave(2, 0), rtol=0.02, atol=0.01)
    torch.testing.assert_close(prior.covariance[0, 0, 0], torch.tensor([0.6, 1.0, 0.6]), rtol=0.03, atol=0.01)


def test_a_layer_has_the_second_moments_of_independent_draws_also_when_it_is_wide() -> None:
    prior = fitted(3, 2, 2)
    exact = prior.sample(400_000, seeded()).flatten(1)
    moments = exact.mT @ exact / len(exact)
    for n in (24, 24 * 40):
        rows = prior.sample_layer(n, seeded()).flatten(1)
        torch.testing.assert_close(rows.mT @ rows / n, moments, rtol=0.05, atol=0.02 * moments.abs().max().item())
        assert len(rows.unique(dim=0)) == n
    gaussian = Gaussian(prior.kernel_shape).fit_(exact.view(-1, 3, 2, 2))
    kernels = prior.sample(500, seeded(1))
    torch.testing.assert_close(prior.log_prob(kernels), gaussian.log_prob(kernels), rtol=0, atol=0.2)


@pytest.mark.parametrize(
    ("n", "side", "directions"), [(6, 5, 6), (20, 5, 16), (31, 5, 16), (40, 5, 20), (5, 3, 5), (11, 3, 6), (16, 3, 8)]
)
def test_few_filters_are_those_of_the_largest_eigenvalues(n: int, side: int, directions: int) -> None:
    """Up to 16 directions, a quarter of all at most, come before an opposite; seeds differ in order and signs."""
    prior = fitted(3, side, side)
    lengths = (
        prior.sample_layer(2 * prior.dim, seeded()).flatten(1).norm(dim=1).sort().values[::2]
    )  # short: a large eigenvalue
    drawn = [prior.sample_layer(n, seeded(seed)).flatten(1) for seed in range(40)]
    for rows in drawn:
        lead = torch.stack([rows.norm(dim=1), rows.abs().sum(1)], 1)  # the same of opposites
        different = lead.unique(dim=0)
        torch.testing.assert_close(different[:, 0], lengths[:directions], rtol=1e-4, atol=0)
        assert rows.sum(0).norm() < 1e-4 or n % 2 or n < 2 * directions  # opposites alone leave nothing
    longest = torch.stack([rows[rows.norm(dim=1).argmin()] for rows in drawn])  # of the largest eigenvalue
    signs = (longest @ longest[0]).sign()
    assert n >= 2 * directions or 8 < (signs > 0).sum() < 32
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_white_inputs_are_strengthened_at_most_so_much_more_than_images(channels: int) -> None:
    for size in (2, 3, 5):
        prior = dwp_init.load_prior("natural-stem").shaped((channels, size, size), (1, 1))
        weight = prior.sample_layer(2 * prior.dim, seeded()).flatten(1).double()
        patches = prior._patches(prior.covariance.double())
        on_white = patches.diagonal().mean() * weight.square().sum()
        on_images = (weight @ patches * weight).sum()
        found = (on_white / on_images).sqrt().item()
        assert found == pytest.approx(MOST_NOISE, rel=1e-3) if channels > 1 else found < MOST_NOISE


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_other_numbers_of_channels(channels: int) -> None:
    given = images(2000)
    prior = fitted(channels, 2, 2)
    mean = given.mean(1, keepdim=True)
    alike = mean if channels == 1 else given[:, :channels] if channels == 2 else None
    weight = prior.sample_layer(2 * prior.dim, seeded())
    if alike is not None:  # the three channels of these images are alike in law
        found = correlations(F.conv2d(alike, weight)).abs()
        assert ((found - 0.5).abs() > 0.2).all()
    assert weight.shape == (2 * prior.dim, channels, 2, 2) and weight.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 4, 4)])
def test_filters_do_not_depend_on_the_library_that_decomposes(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal eigenvalues have any rotation of their eigenvectors, and all eigenvectors have any sign."""
    prior, again = (dwp_init.load_prior("natural-stem").shaped(shape, (1, 1)) for _ in range(2))
    expected, eigh = prior.sample_layer(prior.dim, seeded()), torch.linalg.eigh

    def other(matrix: Tensor) -> tuple[Tensor, Tensor]:
        rotation = torch.linalg.qr(torch.randn(matrix.shape, generator=seeded(), dtype=matrix.dtype)).Q
        values, vectors = eigh(rotation @ matrix @ rotation.mT)
        return values, -rotation.mT @ vectors

    monkeypatch.setattr(torch.linalg, "eigh", other)
    torch.testing.assert_close(again.sample_layer(prior.dim, seeded()), expected, rtol=0, atol=1e-3)


def test_the_covariance_is_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, kernels = fitted(3, 3, 3), torch.randn(4, 3, 3, 3, generator=seeded())
    expected = prior.log_prob(kernels)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    assert all(torch.equal(each.log_prob(kernels), expected) for each in (prior, copy.deepcopy(prior)))
    monkeypatch.undo()
    prior.covariance.mul_(4)
    assert (prior.log_prob(kernels) != expected).all()  # another covariance is another law


def test_the_law_as_a_gaussian() -> None:
    """In closed form: KL of a posterior from N(0, Σ⁻¹ / d)."""
    prior, kernels = fitted(3, 3, 3), torch.randn(4, 3, 3, 3, generator=seeded())
    torch.testing.assert_close(prior.gaussian().log_prob(kernels), prior.log_prob(kernels), rtol=1e-5, atol=1e-4)
    term, q = kl_from(prior), Normal(kernels, torch.full_like(kernels, 0.1))
    assert isinstance(term, GaussianKL)
    draws = torch.stack([-prior.log_prob(q.draw(seeded(seed))) for seed in range(2000)])
    error = draws.std(0) / 2000**0.5
    assert ((draws.mean(0) - entropy(q) - term(q)).abs() < 4 * error).all()


@pytest.mark.parametrize("n", [5, 9, 54, 100])
def test_filters_of_a_layer_are_known_again(n: int) -> None:
    prior = fitted(3, 3, 3)
    drawn = prior.sample_layer(n, seeded())
    assert prior.drew(2 * drawn) and prior.drew(drawn.bfloat16())
    assert not prior.drew(prior.sample(n, seeded())) and not prior.drew(drawn.abs())


def test_volumes_and_signals() -> None:
    signal = PatchWhitening((2, 5)).fit_(torch.randn(50, 2, 40, generator=seeded()))
    volume = PatchWhitening((1, 3, 3, 3)).fit_(torch.randn(20, 1, 8, 8, 8, generator=seeded()))
    for prior, kind in ((signal, nn.Conv1d), (volume, nn.Conv3d)):
        rows = prior.sample_layer(prior.dim, seeded()).flatten(1)
        gram = rows @ rows.mT  # of white images, which are white already
        assert (gram.abs() - torch.eye(len(rows))).abs().sort().values[:, :-2].max() < 0.3
        layer = kind(prior.kernel_shape[0], 8, prior.kernel_shape[1:])
        assert dwp_init.apply_(layer, prior, strict=True).initialized == [""]


def test_apply_takes_it_for_stems_of_any_shape_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv3d(3, 4, (1, 3, 3))
    )
    prior = fitted(3, 3, 3)
    report = dwp_init.apply_(model, prior, seed=0)
    assert report.initialized == ["0"]
    for orthogonal in (False, True):
        with pytest.raises(
            ValueError, match=f"orthogonal={orthogonal} has no effect: PatchWhitening draws filters tog"
        ):
            dwp_init.apply_(model, prior, orthogonal=orthogonal)
    assert dwp_init.apply_(nn.Sequential(model[3]), prior, seed=0).initialized == ["0"]
    with pytest.raises(ValueError, match="the model has 3×1×3"):  # they see lines of several images
        dwp_init.apply_(nn.Conv3d(3, 4, (3, 1, 3)), prior)
    with pytest.raises(ValueError, match="the model has 9×9"):
        dwp_init.apply_(nn.Conv2d(3, 8, 9), prior)  # its taps are further apart than the covariances reach
    weight = torch.empty(8, 3, 4, 4)
    torch.testing.assert_close(
        dwp_init.init.kernels_(weight, prior, depth=0, dilation=2).square().mean().sqrt(),
        torch.tensor(0.2),
        rtol=0.9,
        atol=0,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_shape": (17, 3, 3)}, "at most 16 channels and 4096 numbers, .* got"),
        (
            {"kernel_shape": (3, 5, 5), "span": (4, 4)},
            "taps less than .4, 4. apart; got .3, 5, 5. with dilation .1, 1.",
        ),
        ({"kernel_shape": (3, 3, 3), "span": (4,)}, "span must have a number for each of the 2 axes of a kernel; got"),
        ({"kernel_shape": (3, 3, 3), "dilation": (1, 0)}, "dilation must be a whole number from 1"),
        ({"kernel_shape": (3, 3, 3), "channels": 0}, "channels must be a whole number from 1"),
    ],
)
def test_arguments_that_are_wrong(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchWhitening(**arguments)  # type: ignore[arg-type]


def test_images_that_do_not_fit() -> None:
    prior = PatchWhitening((3, 3, 3), span=(8, 8))
    for wrong in (images()[:, :2], images()[..., :6], images()[:0], images()[0]):
        with pytest.raises(ValueError, match=r"images must be \(n, 3, \*size\), 8×8 or larger; got \("):
            prior.fit_(wrong)
    with pytest.raises(ValueError, match=r"each channel of the images must vary; the smallest variance is 0"):
        prior.fit_(torch.ones(2, 3, 8, 8))


def test_covariances_that_are_none() -> None:
    prior = fitted(3, 3, 3)
    prior.check()
    prior.covariance[0, 1, 0, 0] += 1
    with pytest.raises(ValueError, match="must be the same in both directions; they differ by up to 1"):
        prior.check()
    prior.covariance[0, 0] = -1
    with pytest.raises(ValueError, match=r"the variances of channels must be above 0; the smallest is -1"):
        prior.check()
