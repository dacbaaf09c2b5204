from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dwp_init import Prior, load_prior
from dwp_init.priors import FAMILIES
from tests.toy_family import Spherical
from tests.training.fits.common import (
    QUICK,
    QUICKS,
    direction,
    mixture,
    mixture_log_prob,
    model_bytes,
    run,
    write_kernels,
)
from training.__main__ import main
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context
from training.experiments.density import Density
from training.fits import score as evaluate
from training.fits.autoregressive import FitAutoregressive
from training.fits.base import FITS, Fit, fitted_prior, register_fit
from training.fits.chain import FitChain
from training.fits.density import FitDensity
from training.fits.evaluate import evaluate_priors
from training.fits.flow import FitFlow
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.fits.vae import FitVAE
from training.images.own import UNLICENSED
from training.kernels.kernelset import KernelSet
from training.kernels.read import KernelFile
from training.publish.check import check_sources


def log_prob(prior: Prior, kernels: Tensor) -> Tensor:
    options = {} if prior.exact else {"samples": 1000, "generator": torch.Generator().manual_seed(0)}
    return prior.log_prob(kernels, **options)


def test_every_family_is_asked() -> None:
    of_images = {name for name, family in FAMILIES.items() if family.joint}  # these are not fitted to kernels
    assert FITS.keys() == FAMILIES.keys() - of_images
    assert QUICKS.keys() == BARS.keys() | {"gaussian"} == FITS.keys() - {"mixture-by-depth"}
    assert all(type(stage) is FITS[family] for family, stage in QUICKS.items())


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


def test_a_prior_of_ones_own_kernels_has_the_licence_that_one_says(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", mixture(200, 0).numpy())
    words = [
        "fit",
        "--kernels",
        str(tmp_path / "mine.npy"),
        "--family",
        "gaussian",
        "--device",
        "cpu",
        "--smoke",
        "--out",
    ]
    for out, given, found in (("a", [], UNLICENSED), ("b", ["--license", "CC0-1.0"], "CC0-1.0")):
        assert main([*words, str(tmp_path / out), *given]) == 0
        assert fitted_prior(tmp_path / out / "fit").details["license"] == found
    prior = fitted_prior(tmp_path / "a" / "fit")
    with pytest.raises(
        ValueError, match="nobody has said under which licence others may use this prior: give --license"
    ):
        check_sources(prior)
    (folder := tmp_path / "c").mkdir()
    KernelSet.load(tmp_path / "a" / "kernels").save(folder)
    (folder / "done.json").write_text('{"made_with": {}}')  # as of the pipeline's own networks
    with pytest.raises(ValueError, match="so --license MIT has no effect; drop it, and enter those of a harvest in"):
        KernelFile.of(folder / "kernels.safetensors", "MIT").run(tmp_path / "d", Context(out=tmp_path))


@pytest.mark.parametrize("family", QUICKS)
def test_a_fit_depends_on_its_seed_alone(family: str, tmp_path: Path) -> None:
    stage = QUICKS[family]
    torch.manual_seed(1)
    first = model_bytes(run(tmp_path / "a", stage))
    torch.manual_seed(2)
    assert model_bytes(run(tmp_path / "b", stage)) == first
    same = model_bytes(run(tmp_path / "c", replace(stage, seed=1))) == first
    assert same == (family in ("gaussian", "kde"))


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
    ],
)
def test_settings_that_cannot_be_fitted(stage: Fit, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, stage)
    assert not (tmp_path / "fit" / "prior").exists()


@dataclass(frozen=True)
class FitSpherical(Fit):
    """The fit of a toy family."""

    family: ClassVar[str] = "spherical"

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        return "the root mean square"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Spherical:
        return FAMILIES[self.family](kernels.kernel_shape).fit_(kernels.train)


@dataclass(frozen=True)
class FitSphericalBound(FitSpherical):
    """The fit of a toy family that has a lower bound alone."""

    family: ClassVar[str] = "spherical-bound"


@pytest.fixture(params=[FitSpherical, FitSphericalBound])
def toy(request: pytest.FixtureRequest, toy_families: None, monkeypatch: pytest.MonkeyPatch) -> type[Fit]:
    monkeypatch.setattr("training.fits.base.FITS", dict(FITS))
    return register_fit(request.param)


def test_a_family_of_ones_own_is_fitted_compared_and_evaluated(toy: type[Fit], tmp_path: Path) -> None:
    """With a class and a fit, and no change anywhere else."""
    np.save(tmp_path / "kernels.npy", mixture(200, 0).numpy())
    stages = {
        "kernels": KernelFile.of(tmp_path / "kernels.npy"),
        "toy": toy(name="toy"),
        "gaussian": FitGaussian(name="a Gaussian"),
        "mixture": replace(QUICKS["mixture"], name="a mixture"),
        "density": Density(("kernels", "toy", "gaussian", "mixture")),
    }
    folders = run_stages(stages, Context(out=tmp_path / "out", smoke=True))
    row = read_done(folders["density"])["density"][0]
    prior, kernels = fitted_prior(folders["toy"]), KernelSet.load(folders["kernels"])
    exact = Spherical.log_prob(prior, kernels.test) if prior.exact else None
    assert (row["prior"], row["family"], row["kind"]) == ("toy", toy.family, "exact" if prior.exact else "bound")
    if exact is not None:
        assert row["log_prob"] == pytest.approx(exact.mean().item(), abs=1e-3)
    else:
        assert row["monte_carlo_error"] > 0 and row["elbo"] == ""
    (_, found) = evaluate_priors({"toy": prior}, kernels.train, kernels.test, samples=50)
    assert found["log_prob"] == pytest.approx(row["log_prob"], abs=0 if prior.exact else 0.5)
    assert found["elbo"] == found["by_quadrature"] == ""


def test_a_family_has_one_fit(toy: type[Fit]) -> None:
    @dataclass(frozen=True)
    class Second(FitSpherical):
        family: ClassVar[str] = toy.family

    assert register_fit(toy) is toy
    with pytest.raises(ValueError, match=f"the family '{toy.family}' is fitted by {toy.__name__}; give Second another"):
        register_fit(Second)


BY_EM = {"components": [6, 8, 10], "shrinkages": [3.0, 10], "restarts": 8, "most": 20_000}
EM = (
    "expectation-maximisation with 6, 8 or 10 components and a shrinkage of 3 or 10 kernels{}, the best on the "
    "validation kernels; at most 20,000 kernels"
)
BY_GRADIENT = {"epochs": 1500, "batch_size": 128, "lr": 1e-3}
GRADIENT = (
    "1,500 epochs (300 in the paper), batches of 128, AdamW 0.001, linear decay{}, the best on the validation kernels"
)


@pytest.mark.parametrize(
    ("family", "settings", "text"),
    [
        ("gaussian", {}, "maximum likelihood"),
        ("mixture", BY_EM, EM.format("")),
        ("mixture-by-depth", BY_EM | {"restarts": 1}, "at each depth " + EM.format("")),
        (
            "mixture-by-depth",
            BY_EM | {"reaches": [0, 1]},
            "at each depth "
            + EM.format(", to a layer's kernels and those up to 0 or 1 layers away, the average of 8 starts"),
        ),
        ("kde", {"most": 1000}, "the bandwidth that is best on the validation kernels; at most 1,000 kernels kept"),
        ("mixture", BY_EM | {"components": [1]}, EM.replace("6, 8 or 10 components", "1 component").format("")),
        ("flow", BY_GRADIENT | {"epochs": 1}, GRADIENT.replace("1,500 epochs", "1 epoch").format("")),
        ("flow", BY_GRADIENT, GRADIENT.format("")),
        ("autoregressive", BY_GRADIENT, GRADIENT.format("")),
        ("vae", BY_GRADIENT, GRADIENT.format("")),
        *(
            (family, BY_GRADIENT | {"importance_samples": 5}, GRADIENT.format(", latents per kernel and step: 5"))
            for family in ("vae", "chain")
        ),
    ],
)
def test_how_a_prior_was_fitted_in_words(family: str, settings: dict[str, Any], text: str) -> None:
    assert FITS[family].describe(settings) == text


HOSTILE = (None, True, "9", -1e300, float("nan"), 10**400, [], {}, [None], ["<b>"], [1e300], {"a": 1})


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("family", sorted(FITS.keys() - {"gaussian"}))
def test_settings_of_another_form_are_not_put_in_words(family: str, value: Any) -> None:
    settings = {"most": 9, **BY_EM, **BY_GRADIENT}
    for key in settings:
        assert FITS[family].describe(settings | {key: value}) in ("", FITS[family].describe(settings))
    assert FITS[family].describe({}) == FITS[family].describe(dict.fromkeys(settings, value)) == ""
    reached = FITS[family].describe(settings | {"reaches": value, "importance_samples": value})
    assert reached == FITS[family].describe(settings)
