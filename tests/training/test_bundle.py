"""Bundling: finished fits → the package's folder, the registry and the cards' pictures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import dwp_init
from training import bundle, recipes
from training.__main__ import main
from training.fit import fitted_prior
from training.stages import Context, run_stages


def test_bundling_needs_a_finished_recipe_that_makes_priors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match=r"stage scale_mixture_7x7 in .* is not finished"):
        bundle.bundle(recipes.load("prior_notmnist_7x7"), tmp_path)
    assert main(["bundle", "apply_cost"]) == 1
    assert "'apply_cost' makes no priors" in capsys.readouterr().err


def test_a_prior_from_synthetic_data_is_never_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "BUNDLED", tmp_path / "bundled")
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path / "runs")]) == 0
    with pytest.raises(ValueError, match="synthetic data"):
        bundle.bundle(recipes.load("prior_notmnist_7x7"), tmp_path / "runs")
    assert not (tmp_path / "bundled").exists()


def test_a_prior_made_with_other_settings_is_never_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "BUNDLED", tmp_path / "bundled")
    recipe = recipes.load("prior_notmnist_7x7")
    small = recipe.stages(smoke=True)
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: _prior_of_real_data())
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path / "runs")]) == 0
    with pytest.raises(ValueError, match=r"other settings than the recipe's: components is \[2\], not \[6, 8, 10\]"):
        bundle.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small | {"sources": dataclasses.replace(small["sources"], epochs=9)})
    with pytest.raises(ValueError, match=r"sources was made with other settings than the recipe's: epochs is 1, not 9"):
        bundle.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small)
    config = tmp_path / "runs" / "sources" / "config.json"
    config.write_text(config.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(ValueError, match=r"was made from another sources than the one in .*; run the recipe anew"):
        bundle.bundle(recipe, tmp_path / "runs")
    assert not (tmp_path / "bundled").exists()


@pytest.mark.parametrize(("changed", "kept"), [(False, {"repo": "user/prior", "revision": "0" * 40}), (True, {})])
def test_a_pin_to_the_hub_is_kept_if_and_only_if_the_files_are_the_same(
    changed: bool, kept: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: dict[str, Any] = {}
    monkeypatch.setattr(bundle, "registry", lambda: entries)
    for folder in ("BUNDLED", "CARDS"):
        monkeypatch.setattr(bundle, folder, tmp_path / folder)
    monkeypatch.setattr(bundle, "REGISTRY", tmp_path / "registry.json")
    recipe = recipes.load("prior_notmnist_7x7")
    small = recipe.stages(smoke=True)
    monkeypatch.setattr(recipe, "stages", lambda: {name: small[name] for name in ("sources", "kernels_7x7", "h1_7x7")})
    monkeypatch.setattr(recipe, "PRIORS", {"notmnist-7x7-h1": "h1_7x7"})
    monkeypatch.setattr(bundle, "_provenance", lambda kernels, sources: {})  # synthetic images leave no digest
    run_stages(recipe.stages(), Context(out=tmp_path / "runs", smoke=True))
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: _as_if_of_real_data(fitted_prior(folder), note))
    note = "first"
    assert bundle.bundle(recipe, tmp_path / "runs") == ["notmnist-7x7-h1"]
    assert entries["notmnist-7x7-h1"].keys().isdisjoint({"repo", "revision"})
    entries["notmnist-7x7-h1"] |= {"repo": "user/prior", "revision": "0" * 40}
    note = "second" if changed else "first"
    bundle.bundle(recipe, tmp_path / "runs")
    written = json.loads((tmp_path / "registry.json").read_text())["notmnist-7x7-h1"]
    assert {key: written[key] for key in ("repo", "revision") if key in written} == kept
    assert {path.name for path in (tmp_path / "CARDS" / "notmnist-7x7-h1").iterdir()} == {"kernels.png", "latent.png"}


def _as_if_of_real_data(prior: dwp_init.Prior, note: str) -> dwp_init.Prior:
    prior.details["source"] |= {"synthetic": False, "note": note}
    return prior


def _prior_of_real_data() -> dwp_init.Prior:
    prior = dwp_init.Gaussian((1, 7, 7))
    prior.details = {"source": {"synthetic": False}}
    return prior
