import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dwp_init import Flow, Gaussian, GaussianMixture, Prior, load_prior
from dwp_init.priors import FAMILIES
from training.engine.records import read_metrics
from training.engine.stage import Context
from training.fits import score as evaluate
from training.fits.autoregressive import FitAutoregressive
from training.fits.base import FITS, Fit, fitted_prior
from training.fits.by_depth import FitByDepth
from training.fits.chain import FitChain
from training.fits.density import FitDensity
from training.fits.flow import FitFlow
from training.fits.gaussian import FitGaussian
from training.fits.gradient import FitByGradient
from training.fits.mixture import FitMixture
from training.fits.vae import FitVAE
from training.kernels.kernelset import KernelSet

SHORT = {"name": "quick", "epochs": 4, "batch_size": 32, "evaluate_every": 1}
LATENT = {"latent_dim": 2, "hidden": 8}
QUICK = FitVAE(**LATENT, **SHORT)
QUICKS = {
    "gaussian": FitGaussian(),
    "mixture": FitMixture(components=(2, 3), shrinkages=(10.0,), scales=(1.0,), restarts=2),
    "kde": FitDensity(most=50),
    "flow": FitFlow(transforms=1, hidden=4, jitter=0.1, **SHORT),
    "autoregressive": FitAutoregressive(hidden=4, mixtures=2, dropout=0.5, **SHORT),
    "vae": QUICK,
    "chain": FitChain(**LATENT, **SHORT),
}
SCALE = 0.1


def direction(size: int) -> Tensor:
    return torch.full((size**2,), 1 / size)


def mixture(n: int, seed: int, size: int = 3) -> Tensor:
    """Kernels from ½ N(d, 0.1² I) + ½ N(-d, 0.1² I), |d| = 1."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    noise = torch.randn(n, size**2, generator=generator)
    return (side * direction(size) + SCALE * noise).view(n, 1, size, size)


def mixture_log_prob(kernels: Tensor) -> Tensor:
    loc = direction(kernels.shape[-1])
    parts = [torch.distributions.Normal(sign * loc, SCALE).log_prob(kernels.flatten(1)).sum(1) for sign in (1, -1)]
    return torch.stack(parts).logsumexp(0) - math.log(2)


def write_kernels(out: Path, kernels: KernelSet) -> None:
    (out / "kernels").mkdir(parents=True)
    kernels.save(out / "kernels")
    done = {"source": {"dataset": "mixture"}, "kernels": kernels.counts(), "kept": 1.0}
    (out / "kernels" / "done.json").write_text(json.dumps(done))


def run(out: Path, stage: Fit, train: int = 200) -> Path:
    if not (out / "kernels").exists():
        parts = [mixture(n, seed) for seed, n in enumerate((train, 60, 60))]
        write_kernels(out, KernelSet(*parts, torch.zeros(60)))
    folder = out / "fit"
    folder.mkdir(exist_ok=True)
    summary = stage.run(folder, Context(out=out))
    assert summary["metrics"] == fitted_prior(folder).details["metrics"]
    return folder


def prior_bytes(folder: Path) -> bytes:
    return (folder / "prior" / "model.safetensors").read_bytes()


def log_prob(prior: Prior, kernels: Tensor) -> Tensor:
    options = {} if prior.exact else {"samples": 1000, "generator": torch.Generator().manual_seed(0)}
    return prior.log_prob(kernels, **options)


def test_every_family_is_asked() -> None:
    assert FITS.keys() == FAMILIES.keys()
    one_layer = {family for family, fit in FITS.items() if fit.one_layer}
    assert one_layer == QUICKS.keys() == BARS.keys() | {"gaussian"} == FITS.keys() - {"mixture-by-depth"}
    assert all(type(stage) is FITS[family] for family, stage in QUICKS.items())


def test_gaussian_has_the_moments_of_the_fitting_kernels(tmp_path: Path) -> None:
    folder = run(tmp_path, QUICKS["gaussian"])
    white, flat = fitted_prior(folder).whitening, mixture(200, 0).flatten(1)
    torch.testing.assert_close(white.loc, flat.mean(0))
    torch.testing.assert_close((white.basis * white.scale.square()) @ white.basis.T, torch.cov(flat.T, correction=0))
    metrics = fitted_prior(folder).details["metrics"]
    assert metrics["log_prob"] == metrics["gaussian_log_prob"]


BRIEF = {"epochs": 20, "lr": 1e-2, "evaluate_every": 10}
RAW = {"latent_dim": 2, "hidden": 32, "whiten": False, **BRIEF | {"lr": 6e-3}}
BARS: dict[str, tuple[Fit, int, float]] = {  # by family: its settings, the kernels' size and nats over the Gaussian
    "mixture": (FitMixture(components=(2, 4), shrinkages=(3.0,), scales=(0.8, 1.0, 1.2), restarts=2), 3, 1.3),
    "kde": (FitDensity(), 2, 0.7),
    "flow": (FitFlow(network="nsf", transforms=1, hidden=16, **BRIEF | {"epochs": 10}), 3, 1.3),
    "autoregressive": (FitAutoregressive(hidden=32, mixtures=2, **BRIEF), 3, 1.2),
    "vae": (FitVAE(**RAW), 3, 0.8),
    "chain": (FitChain(**RAW), 3, 0.8),
}


@pytest.mark.parametrize("family", BARS)
def test_a_family_learns_a_mixture_that_no_gaussian_can(family: str, tmp_path: Path) -> None:
    """The Gaussian loses ½ log(1 + |d|²/σ²) - log 2 = 1.61 nats; what is found never passes the truth."""
    stage, size, bar = BARS[family]
    test = mixture(400, 2, size)
    write_kernels(tmp_path, KernelSet(mixture(2000, 0, size), mixture(200, 1, size), test, torch.zeros(400)))
    prior = fitted_prior(run(tmp_path, stage))
    metrics, truth = prior.details["metrics"], mixture_log_prob(test)
    assert prior.family == family
    assert metrics["gaussian_log_prob"] == pytest.approx(truth.mean().item() - 1.61, abs=0.15)
    assert metrics["log_prob"] > metrics["gaussian_log_prob"] + bar
    over = log_prob(prior, test) - truth
    assert over.mean() < 3 * over.std() / len(over) ** 0.5
    assert over.mean().item() == pytest.approx(metrics["log_prob"] - truth.mean().item(), abs=0.01)
    if not prior.exact:
        assert metrics["elbo"] < metrics["log_prob"]
    drawn = prior.sample(2000, torch.Generator().manual_seed(0)).flatten(1) @ direction(size)
    assert drawn.mean().item() == pytest.approx(0, abs=0.1)
    assert (drawn.abs() > 0.5).float().mean() > 0.75  # all but all of the law's own, 62 % of the Gaussian's


@pytest.mark.parametrize("family", QUICKS)
def test_what_a_fit_leaves_behind(family: str, tmp_path: Path) -> None:
    folder = run(tmp_path, QUICKS[family])
    assert {path.name for path in folder.iterdir()} - {"metrics.jsonl"} == {"prior", "scores.safetensors"}
    prior, test = load_prior(folder / "prior"), KernelSet.load(tmp_path / "kernels").test
    assert prior.family == family and not prior.training
    scores = load_file(folder / "scores.safetensors")["log_prob"]
    torch.testing.assert_close(scores, evaluate.score(prior, test)[0], rtol=0, atol=1e-4)
    assert scores.mean().item() == pytest.approx(prior.details["metrics"]["log_prob"], abs=1e-3)
    found = prior.details["metrics"]["samples"]
    assert list(found) == ["real", "drawn", "mean"][: 3 if prior.has_noise else 2]
    assert found["drawn"]["rms"] == pytest.approx(prior.sample(10_000).square().mean().sqrt().item(), rel=0.05)


@pytest.mark.parametrize("law", ["two-sided", "one-sided"])
def test_a_mixture_is_the_best_of_its_grid_on_validation_kernels(law: str, tmp_path: Path) -> None:
    """Kernels to fit and to test are of two sides; where the validation kernels are not, one component is best."""
    train, test = mixture(300, 0), mixture(60, 2)
    validation = mixture(100, 1) if law == "two-sided" else Gaussian((1, 3, 3)).fit_(train).sample(100)
    write_kernels(tmp_path, KernelSet(train, validation, test, torch.zeros(60)))
    stage = FitMixture(components=(1, 2, 30), shrinkages=(1000.0, 5.0), scales=(1.0,), restarts=3, seed=4)
    folder = run(tmp_path, stage)
    averages = {}
    for components in stage.components:
        for shrinkage in stage.shrinkages:
            parts = []
            for restart in range(3):
                generator = torch.Generator().manual_seed(4 * 1009 + restart)
                part = GaussianMixture((1, 3, 3), components).fit_(train, shrinkage, generator=generator)
                parts.append(part.log_prob(validation))
            averages[components, shrinkage] = torch.stack(parts).logsumexp(0) - math.log(3)
    best = max(averages, key=lambda key: averages[key].mean())
    assert best == ((2, 5.0) if law == "two-sided" else (1, 1000.0))
    prior = fitted_prior(folder)
    torch.testing.assert_close(prior.log_prob(validation), averages[best], rtol=0, atol=1e-3)
    assert prior.components == 3 * best[0]
    rows = {(row["components"], row["shrinkage"]): row["validation_log_prob"] for row in read_metrics(folder)}
    assert rows == {key: pytest.approx(value.mean().item(), abs=2e-3) for key, value in averages.items()}


def test_more_components_than_kernels_are_left_out(tmp_path: Path) -> None:
    stage = FitMixture(components=(201, 1, 200), shrinkages=(10.0,), scales=(1.0,), restarts=1)
    assert [row["components"] for row in read_metrics(run(tmp_path, stage))] == [1, 200]


@pytest.mark.parametrize(
    ("most", "kept"), [(50, slice(None, None, 4)), (200, slice(None)), (150, slice(None, None, 2))]
)
def test_a_density_keeps_evenly_spaced_kernels(most: int, kept: slice, tmp_path: Path) -> None:
    prior = fitted_prior(run(tmp_path, FitDensity(most=most)))
    assert torch.equal(prior.learned, mixture(200, 0)[kept].flatten(1))


LATENTS = {"latent_dim": 3, "hidden": 5, "dropout": 0.1, "min_scale": 0.2, "whiten": False, "network": "dense"}


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (FitFlow, {"network": "nsf", "transforms": 2, "hidden": 5, "coupling": True}),
        (FitAutoregressive, {"hidden": 5, "mixtures": 3, "dropout": 0.1}),
        (FitVAE, LATENTS),
        (FitChain, LATENTS | {"transitions": 2}),
        (FitVAE, {"network": "paper", "latent_dim": 3, "min_scale": 0.2, "whiten": True}),
    ],
)
def test_settings_reach_the_prior(stage: type[FitByGradient], settings: dict[str, Any]) -> None:
    prior = stage(**settings).build((1, 7, 7))
    assert prior.arguments() == settings and prior.family == stage.family


def test_jitter_is_white_noise_of_its_size_on_whitened_kernels() -> None:
    train = mixture(50, 0).repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    prior = Flow((1, 3, 3), transforms=1, hidden=4)
    prior.whitening.fit_(train.flatten(1))
    jittered = FitFlow(jitter=0.3).jittered(prior, train)
    noise = prior.whitening(jittered.flatten(1)) - prior.whitening(train.flatten(1))
    torch.testing.assert_close(torch.cov(noise.T), 0.3**2 * torch.eye(9), rtol=0, atol=4 * 0.3**2 * (2 / 20_000) ** 0.5)
    assert noise.mean(0).abs().max() < 4 * 0.3 / 20_000**0.5
    assert FitFlow().jittered(prior, train) is train


def test_jitter_reaches_what_is_fitted(tmp_path: Path) -> None:
    plain = prior_bytes(run(tmp_path / "plain", replace(QUICKS["flow"], jitter=0.0)))
    assert prior_bytes(run(tmp_path / "jittered", QUICKS["flow"])) != plain


def test_several_importance_samples_tighten_what_is_maximised() -> None:
    torch.manual_seed(0)
    kernels = mixture(500, 0)
    prior = QUICK.build((1, 3, 3))
    bounds = []
    for samples in (1, 50):
        torch.manual_seed(0)
        bounds.append(replace(QUICK, importance_samples=samples).bound(prior, kernels).mean().item())
    torch.manual_seed(0)
    assert bounds[0] == prior.elbo(kernels).mean().item() and bounds[1] > bounds[0] + 0.02


def test_provenance_goes_with_the_prior(tmp_path: Path) -> None:
    details = fitted_prior(run(tmp_path, QUICK)).details
    assert details["name"] == "quick" and details["license"] == "MIT"
    assert details["source"] == {
        "dataset": "mixture",
        "kernels": {"train": 200, "validation": 60, "test": 60},
        "kept": 1.0,
    }
    expected = {key: value for key, value in vars(QUICK).items() if key not in ("needs", "name", "evaluate_every")}
    assert details["fit"] == expected and expected["latent_dim"] == 2


@pytest.mark.parametrize("family", QUICKS)
def test_a_fit_depends_on_its_seed_alone(family: str, tmp_path: Path) -> None:
    stage = QUICKS[family]
    torch.manual_seed(1)
    first = prior_bytes(run(tmp_path / "a", stage))
    torch.manual_seed(2)
    assert prior_bytes(run(tmp_path / "b", stage)) == first
    same = prior_bytes(run(tmp_path / "c", replace(stage, seed=1))) == first
    assert same == (family in ("gaussian", "kde"))


GRADIENT = [family for family, stage in FITS.items() if issubclass(stage, FitByGradient)]
KILLS = [(1, 1), (1, 2), (1, 4), (1, 5), (3, 1), (3, 2), (3, 3)]  # epochs between looks, and the look at which it ends


@pytest.mark.parametrize(
    ("family", "evaluate_every", "call"),
    [(family, *kill) for family in GRADIENT for kill in (KILLS if family == "vae" else KILLS[1::2])],
)
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(
    family: str, evaluate_every: int, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at a look at the validation kernels or, at last, the test kernels."""
    stage, calls = replace(QUICKS[family], evaluate_every=evaluate_every), []
    if family in ("vae", "chain"):
        stage = replace(stage, dropout=0.5, jitter=0.1)

    def interrupted(*arguments: Any, **options: Any) -> tuple[Tensor, dict[str, float]]:
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return evaluate.score(*arguments, **options)

    expected = prior_bytes(run(tmp_path / "whole", stage))
    with monkeypatch.context() as patch:
        patch.setattr("training.fits.gradient.score", interrupted)
        patch.setattr("training.fits.base.score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", stage)
    folder = run(tmp_path / "part", stage)
    assert prior_bytes(folder) == expected
    assert [row["epoch"] for row in read_metrics(folder)] == ([1, 2, 3, 4] if evaluate_every == 1 else [3, 4])


def looks(values: list[float], seen: list[dict[str, Tensor]]) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """Puts made-up values in place of log p of the validation kernels."""

    def look(prior: Prior, kernels: Tensor, samples: int = 1000, **options: int) -> tuple[Tensor, dict[str, float]]:
        if samples == 1000:
            return evaluate.score(prior, kernels, samples=10)
        seen.append(copy.deepcopy(prior.state_dict()))
        return torch.empty(0), {"log_prob": values[len(seen) - 1]}

    return look


@pytest.mark.parametrize("values", [[1, 5, 3, 4], [float("nan"), -7, -8, -9], [1, 2, 3, 4], [3, 1, 3, 2]])
def test_the_best_state_on_validation_kernels_is_kept(
    values: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr("training.fits.gradient.score", looks(values, seen))
    found = fitted_prior(run(tmp_path, QUICK)).state_dict()
    best = max(range(4), key=lambda epoch: (-math.inf if math.isnan(values[epoch]) else values[epoch], -epoch))
    same = [all(torch.equal(found[name], state[name]) for name in found) for state in seen]
    assert same == [epoch == best for epoch in range(4)]


def test_a_fit_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fits.gradient.score", looks([float("nan")] * 4, []))
    with pytest.raises(ValueError, match=r"the fit of 'quick' diverged: .*; lower lr=0\.001"):
        run(tmp_path, QUICK)


def test_learning_rate_decays_by_step_towards_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    class Recorded(torch.optim.AdamW):
        def step(self) -> None:
            found.extend(group["lr"] for group in self.param_groups)
            super().step()

    monkeypatch.setattr("torch.optim.AdamW", Recorded)
    run(tmp_path, replace(QUICK, epochs=2, batch_size=60, lr=0.6))
    assert found == [pytest.approx(rate) for rate in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (replace(QUICK, epochs=0), "epochs must be 1 or more; got 0"),
        (replace(QUICK, batch_size=0), "batch_size must be 1 or more; got 0"),
        (replace(QUICK, evaluate_every=0), "evaluate_every must be 1 or more; got 0"),
        (replace(QUICK, importance_samples=0), "importance_samples must be 1 or more; got 0"),
        (FitMixture(restarts=0), "restarts must be 1 or more; got 0"),
        (FitMixture(most=0), "most must be 1 or more; got 0"),
        (FitMixture(components=(300, 201)), r"^201 components .*; there are 200: lower components=\(300, 201\)"),
        (FitMixture(most=50, components=(60,)), "^60 components need as many kernels to fit; there are 50"),
        (FitMixture(shrinkages=(0.0,)), "shrinkage must be a number above 0"),
        (FitDensity(most=0), "most must be 1 or more; got 0"),
        (FitFlow(network="dense"), "network must be one of 'maf', 'nsf'; got 'dense'"),
        (FitAutoregressive(mixtures=0), "mixtures must be a whole number from 1"),
        (FitChain(transitions=-1), "transitions must be a whole number from 0 to 1000; got -1"),
        (FitVAE(network="paper"), "paper"),
    ],
)
def test_settings_that_cannot_be_fitted(stage: Fit, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, stage)
    assert not (tmp_path / "fit" / "prior").exists()


def test_a_mixture_without_a_finite_log_prob_names_the_outlier(tmp_path: Path) -> None:
    outlier = torch.full((2, 1, 3, 3), 1e25)
    write_kernels(tmp_path, KernelSet(mixture(200, 0), outlier, mixture(60, 2), torch.zeros(60)))
    stage = FITS["mixture"](components=(2,), shrinkages=(10.0,), restarts=1)
    with pytest.raises(ValueError, match=r"no mixture of 'my-prior' gives the validation kernels a finite .*inf"):
        run(tmp_path, stage)


def test_layers_are_fitted_one_by_one(tmp_path: Path) -> None:
    """The second layer's kernels are twice the first's, so its density is 9 log 2 nats lower where depth is known."""
    for name, factor in (("near", 1), ("far", 2)):
        parts = [factor * mixture(n, seed) for seed, n in enumerate((400, 60, 60))]
        write_kernels(tmp_path, KernelSet(*parts, torch.arange(60)))
        (tmp_path / "kernels").rename(tmp_path / name)
    done = json.loads((tmp_path / "far" / "done.json").read_text())
    done["source"]["dataset"] = "twice"
    (tmp_path / "far" / "done.json").write_text(json.dumps(done))
    stage = FitByDepth(("near", "far"), components=(2,), shrinkages=(3.0,), scales=(1.0,), restarts=1, depths=(0.5, 1))
    (tmp_path / "fit").mkdir()
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    prior = fitted_prior(tmp_path / "fit")
    assert prior.depths == (0.5, 1.0)
    for depth, factor, found in zip((0.5, 1), (1, 2), metrics["log_prob_by_depth"], strict=True):
        kernels = factor * mixture(60, 2)
        assert prior.at(depth).log_prob(kernels).mean().item() == pytest.approx(found, abs=1e-3)
    near, far = metrics["log_prob_by_depth"]
    assert near - far == pytest.approx(9 * math.log(2), abs=0.01)
    assert metrics["log_prob_at_depth"] == pytest.approx((near + far) / 2, abs=1e-3)
    assert near - math.log(2) - 5 < metrics["log_prob"] < metrics["log_prob_at_depth"]
    source = prior.details["source"]
    assert source["dataset"] == ["mixture", "twice"]
    assert source["kernels"] == {"train": 800, "validation": 120, "test": 120} and source["kept"] == [1.0, 1.0]


def test_what_is_known_at_depth_counts_each_kernel_the_same(tmp_path: Path) -> None:
    """As log p of kernels of unknown depth does, beside which it stands; the second layer has three times as many."""
    layers = []
    for name, factor, held_out in (("near", 1, 40), ("far", 5, 120)):
        parts = [factor * mixture(n, n) for n in (200, 60, held_out)]
        layers.append(KernelSet(*parts, torch.zeros(held_out)))
        write_kernels(tmp_path, layers[-1])
        (tmp_path / "kernels").rename(tmp_path / name)
    stage = FitByDepth(("near", "far"), components=(2,), shrinkages=(3.0,), scales=(1.0,), restarts=1, depths=(0.5, 1))
    (tmp_path / "fit").mkdir()
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    prior, tests = fitted_prior(tmp_path / "fit"), [layer.test for layer in layers]
    known = torch.cat([prior.at(depth).log_prob(test) for depth, test in zip((0.5, 1), tests, strict=True)])
    controls = [Gaussian((1, 3, 3)).fit_(layer.train).log_prob(layer.test) for layer in layers]
    assert metrics["log_prob_at_depth"] == pytest.approx(known.mean().item(), abs=2e-3)
    assert metrics["gaussian_log_prob_at_depth"] == pytest.approx(torch.cat(controls).mean().item(), abs=2e-3)
    assert metrics["log_prob"] < metrics["log_prob_at_depth"]


def test_a_layer_of_few_kernels_is_fitted_with_its_neighbours_and_one_unlike_them_alone(tmp_path: Path) -> None:
    """The first layer has few kernels and the second's density; the third's kernels are ten times as large."""
    for number, (name, factor, n) in enumerate((("near", 1, 20), ("middle", 1, 200), ("far", 10, 200))):
        parts = [factor * mixture(count, 10 * number + seed) for seed, count in enumerate((n, 60, 60))]
        write_kernels(tmp_path, KernelSet(*parts, torch.arange(60)))
        (tmp_path / "kernels").rename(tmp_path / name)
    grid = {"components": (1,), "shrinkages": (3.0,), "scales": (1.0,), "restarts": 1, "depths": (0.2, 0.4, 1)}
    found = {}
    for name, reaches in (("alone", (0,)), ("any", (0, 1))):
        (tmp_path / name).mkdir()
        stage = FitByDepth(("near", "middle", "far"), reaches=reaches, **grid)
        found[name] = stage.run(tmp_path / name, Context(out=tmp_path))["metrics"]
    assert found["alone"]["reaches"] == [0, 0, 0]
    assert found["any"]["reaches"] == [1, 0, 0]
    near, _, far = zip(found["alone"]["log_prob_by_depth"], found["any"]["log_prob_by_depth"], strict=True)
    assert near[1] > near[0] + 0.1 and far[0] == far[1]


def _layers(folder: Path, layers: Mapping[str, KernelSet]) -> None:
    for name, kernels in layers.items():
        write_kernels(folder, kernels)
        (folder / "kernels").rename(folder / name)


ONE_GAUSSIAN = {"components": (1,), "shrinkages": (1e-6,), "scales": (1.0,), "restarts": 1, "depths": (0.5, 1.0)}


def test_the_reach_is_chosen_on_validation_kernels_not_on_test_kernels(tmp_path: Path) -> None:
    """The near layer's validation kernels are like its own, and its test kernels like the far layer's."""
    near = KernelSet(mixture(200, 0), mixture(60, 1), 10 * mixture(60, 2), torch.arange(60))
    far = KernelSet(*(10 * mixture(n, n) for n in (200, 60, 61)), torch.arange(61))
    _layers(tmp_path, {"near": near, "far": far})
    (tmp_path / "fit").mkdir()
    stage = FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN)
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    assert metrics["reaches"] == [0, 0]
    prior = fitted_prior(tmp_path / "fit")
    assert prior.at(0.5).log_prob(near.test).mean() < prior.at(1.0).log_prob(near.test).mean()


def test_the_gaussian_beside_it_may_reach_as_far(tmp_path: Path) -> None:
    """Of mixtures that are Gaussians themselves neither is ahead, though a layer alone has few kernels."""
    _layers(
        tmp_path,
        {
            name: KernelSet(*(mixture(n, 10 * k + part) for part, n in enumerate((14, 60, 60))), torch.arange(60))
            for k, name in enumerate(("near", "far"))
        },
    )
    (tmp_path / "fit").mkdir()
    stage = FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN)
    metrics = stage.run(tmp_path / "fit", Context(out=tmp_path))["metrics"]
    assert metrics["reaches"] == [1, 1]
    assert metrics["log_prob_at_depth"] == pytest.approx(metrics["gaussian_log_prob_at_depth"], abs=0.01)


def test_neighbours_of_other_networks_are_not_fitted_together(tmp_path: Path) -> None:
    kernels = KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20))
    _layers(tmp_path, {"near": kernels, "far": kernels})
    done = json.loads((tmp_path / "far" / "done.json").read_text())
    done["source"]["dataset"] = "another"
    (tmp_path / "far" / "done.json").write_text(json.dumps(done))
    with pytest.raises(ValueError, match="near and far differ in dataset: fitted together, one could see networks"):
        FitByDepth(("near", "far"), reaches=(0, 1), **ONE_GAUSSIAN).run(tmp_path, Context(out=tmp_path))


def test_odd_depths_are_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    kernels = KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20))
    _layers(tmp_path, {"near": kernels, "far": kernels})
    with pytest.raises(ValueError, match="depths must ascend"):
        FitByDepth(("near", "far"), **ONE_GAUSSIAN | {"depths": (1.0, 0.5)}).run(tmp_path, Context(out=tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_reaches_are_checked(tmp_path: Path) -> None:
    write_kernels(tmp_path, KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20)))
    with pytest.raises(ValueError, match=r"reaches must be one or more .*; got \(-1,\)"):
        FitByDepth(("kernels",), depths=(1.0,), reaches=(-1,)).run(tmp_path, Context(out=tmp_path))


def test_each_layer_needs_its_depth(tmp_path: Path) -> None:
    write_kernels(tmp_path, KernelSet(*(mixture(20, seed) for seed in range(3)), torch.zeros(20)))
    with pytest.raises(ValueError, match=r"each kernels stage needs its depth; needs=\('kernels',\), depths=\(\)"):
        FitByDepth(("kernels",)).run(tmp_path, Context(out=tmp_path))
