"""The priors inside the package: whole, small, and what they claim to be."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

import dwp_init
from dwp_init.picture import planes_of
from dwp_init.priors.patches import MOST_NOISE
from dwp_init.registry import BUNDLED, registry

CARDS = Path(__file__).parents[1] / "model_cards"

NAMES = (
    *("audio", "audio-dw3x3", "brain-mri"),
    *(f"natural-{kind}" for kind in ("dw3x3", "dw5x5", "dw7x7", "stem")),
    *(f"notmnist-{size}{suffix}" for size in ("5x5", "7x7") for suffix in ("", "-h1", "-vae")),
    "restoration",
    *(f"tinyimagenet-{kind}" for kind in ("3x3", "5x5", "7x7", "dw3x3", "dw7x7", "stem-7x7")),
)
OF_KERNELS = tuple(name for name in NAMES if name not in ("natural-dw7x7", "natural-stem"))


def test_the_registry_lists_exactly_what_is_bundled() -> None:
    assert tuple(dwp_init.list_priors()) == NAMES
    assert {path.name for path in BUNDLED.iterdir()} == set(NAMES)
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 12_000_000


def test_the_package_has_the_licence_of_every_prior() -> None:
    root, licences = Path(__file__).parents[1], {name: entry["license"] for name, entry in registry().items()}
    stated = re.findall(r'^license = "(.*)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert {*stated.split(" AND ")} == {"MIT", *licences.values()}
    table = (root / "LICENSES" / "README.md").read_text(encoding="utf-8")
    for name, licence in licences.items():
        if licence != "MIT":
            assert re.search(rf"`{name}`.*\| \[{licence}\]\({licence}\.txt\) \|", table), name
            assert (root / "LICENSES" / f"{licence}.txt").is_file()


@pytest.mark.parametrize("name", registry())
def test_a_bundled_prior(name: str) -> None:
    entry, prior = registry()[name], dwp_init.load_prior(name)
    for file, sha256 in entry["sha256"].items():
        assert hashlib.sha256((BUNDLED / name / file).read_bytes()).hexdigest() == sha256
    assert list(prior.kernel_shape) == entry["kernel_shape"] and prior.family == entry["family"]
    assert prior.details["name"] == name
    assert (prior.details["source"]["dataset"], prior.details["license"]) == (entry["source"], entry["license"])
    assert prior.details.get("metrics", {}).get("log_prob") == entry["log_prob"]
    assert not prior.details["source"]["synthetic"]
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert f"\n## Family and size\n\n{prior.describe()}\n" in (CARDS / name / "README.md").read_text()


@pytest.mark.parametrize("name", OF_KERNELS)
def test_draws_are_structured_and_of_the_recorded_scale(name: str) -> None:
    prior = dwp_init.load_prior(name)
    kernels = prior.sample(4000, torch.Generator().manual_seed(1))
    recorded = prior.details["metrics"]["samples"]["drawn"]
    squares = kernels.square().flatten(1).mean(1)
    error = (squares.std() / squares.mean() / 2 * (1 / 4000 + 1 / 10_000) ** 0.5).item()  # large where tails are heavy
    assert squares.mean().sqrt().item() == pytest.approx(recorded["rms"], rel=max(0.05, 4 * error))
    if prior.kernel_shape == (1, 3):
        assert recorded["roughness"] is None  # it is one of images
        return
    kernels = planes_of(kernels)
    steps = (kernels.diff(dim=2).square().mean() + kernels.diff(dim=3).square().mean()) / 2
    roughness = (steps / (2 * kernels.square().mean())).item()
    assert roughness == pytest.approx(recorded["roughness"], rel=0.08)
    assert roughness < 0.95 or name == "restoration"  # white noise has 1; edges to be restored are as rough


@pytest.mark.parametrize("name", OF_KERNELS)
def test_draws_are_likelier_under_the_prior_than_under_white_noise_of_their_scale(name: str) -> None:
    prior = dwp_init.load_prior(name)
    generator = torch.Generator().manual_seed(0)
    kernels = prior.sample(1000 if prior.exact else 200, generator)
    noise = torch.distributions.Normal(0.0, kernels.square().mean().sqrt())
    options = {} if prior.exact else {"samples": 64, "generator": generator}
    lead = prior.log_prob(kernels, **options) - noise.log_prob(kernels).flatten(1).sum(1)
    assert lead.mean() > 5 * lead.std() / len(lead) ** 0.5


@pytest.mark.parametrize(("shape", "dilation"), [((3, 3, 3), (1, 1)), ((3, 7, 7), (1, 1)), ((1, 4, 4), (2, 2))])
def test_stems_whiten_images_that_are_alike_at_all_scales(shape: tuple[int, ...], dilation: tuple[int, int]) -> None:
    """Here the power falls with the square of the frequency, as in photographs; the most directions are h · w."""
    prior = dwp_init.load_prior("natural-stem").shaped(shape, dilation)
    assert prior is not None
    frequencies = torch.fft.fftfreq(64)[:, None].hypot(torch.fft.fftfreq(64)).clamp_min(1 / 64)
    noise = torch.fft.fft2(torch.randn(100, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    images = torch.fft.ifft2(noise / frequencies).real
    images = (images / images.std()).expand(-1, shape[0], -1, -1)
    white = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))

    def spread(weight: torch.Tensor) -> float:
        outputs = torch.nn.functional.conv2d(images, weight, dilation=dilation).transpose(0, 1).flatten(1)
        values = torch.linalg.eigvalsh(torch.cov(outputs)).clamp_min(0)
        return (values.sum() ** 2 / values.square().sum()).item()  # the number of directions that share the power

    assert spread(prior.sample_layer(64, torch.Generator().manual_seed(0))) > 2 * spread(white)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_stems_answer_as_strongly_as_before_and_noise_not_much_more(channels: int, size: int) -> None:
    """In images all colours are nearly alike, and the power falls with the square of the frequency."""
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.fft.fftfreq(32)[:, None].hypot(torch.fft.fftfreq(32)).clamp_min(1 / 32)
    noise = torch.fft.fft2(torch.randn(200, 1 + channels, 32, 32, generator=generator))
    smooth = torch.fft.ifft2(noise / frequencies).real
    images = smooth[:, :1] + 0.25 * smooth[:, 1:]
    inputs = {"images": images / images.std(), "noise": torch.randn(images.shape, generator=generator)}
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(channels, 64, size, bias=False)
    wide = torch.nn.Conv2d(channels, 2000, size, bias=False)  # of the same law, with less error
    report = dwp_init.apply_(layer, "natural", seed=0)
    assert report.drawn[0].prior == "natural-stem" and "images of mean 0" in report.notes[0]
    with torch.no_grad():
        ratio = {
            name: (layer(given).square().mean() / wide(given[:50]).square().mean()).sqrt().item()
            for name, given in inputs.items()
        }
    assert 0.7 < ratio["images"] < 2.3 and ratio["noise"] < 1.15 * MOST_NOISE


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("restoration", torch.nn.Conv2d(32, 64, 3)),
        ("brain-mri", torch.nn.Conv3d(16, 32, 3)),
        ("audio", torch.nn.Conv1d(16, 32, 3)),
        ("audio-dw3x3", torch.nn.Conv2d(512, 512, 3, groups=512)),
    ],
)
def test_priors_of_other_domains_draw_layers_of_their_kind(name: str, layer: torch.nn.Module) -> None:
    """The layer keeps its response, so that its draws are the prior's up to a factor."""
    assert dwp_init.apply_(layer, name, seed=0).initialized == [""]
    weight = layer.get_parameter("weight").detach()
    kernels = weight.flatten(0, 1)[:, None] / weight.square().mean().sqrt()
    noise = torch.randn(kernels.shape, generator=torch.Generator().manual_seed(0))
    drawn, white = (dwp_init.load_prior(name).log_prob(each) for each in (kernels, noise))
    assert drawn.mean() - white.mean() > 5 * ((drawn.var() + white.var()) / len(drawn)) ** 0.5


def test_7x7_depthwise_draws_come_close_to_each_of_the_eight_filters() -> None:
    """Half of the draws pass their input on; the others are the filters with both signs."""
    prior = dwp_init.load_prior("natural-dw7x7")
    draws = prior.sample(20_000, torch.Generator().manual_seed(1)).flatten(1)
    draws = draws / draws.norm(dim=1, keepdim=True)
    passing = draws[:, 24] > 0.97
    assert abs(passing.float().mean() - 1 / 2 - 1 / 32) < 0.01  # one of the filters is nearly that one
    rest = draws[~passing]
    leaders, left = [], rest
    while len(left):  # each leader takes the draws that are like it, up to the sign
        leaders.append(left[0])
        left = left[(left @ left[0]).abs() < 0.9]
    assert len(leaders) == 8
    assert (rest @ torch.stack(leaders).mT).abs().amax(1).min() > 0.9
