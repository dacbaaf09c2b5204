"""Bundling: finished fits → the package's folder, the registry and the cards' pictures."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import dwp_init
from dwp_init import registry
from tests.training.kernels.states import networks_in_a_manifest
from training import recipes
from training.__main__ import main
from training.engine.run import run_stages
from training.engine.stage import Context
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.fits.mixture import FitMixture
from training.kernels.collect import JointKernels, Kernels
from training.kernels.harvested import HarvestedKernels
from training.kernels.sources import Sources
from training.publish import bundle, cards, pages, release
from training.publish.check import check_card

GRID = {"components": (2,), "shrinkages": (100.0,), "restarts": 1}
HELD_OUT = {"needs": ("sources",), "validation_networks": 1, "test_networks": 1}
SMALL = {  # in the manner of prior_tinyimagenet
    "sources": Sources(
        data="tinyimagenet32-a", network="resnet-7x7-stem", filters=(4, 4, 4), networks=3, epochs=1, batch_size=128
    ),
    "kernels_stem": JointKernels(layer="stem.0", **HELD_OUT),
    "kernels_1": Kernels(layer="body.0.conv1", **HELD_OUT),
    "kernels_2": Kernels(layer="body.2.conv2", min_norm=0.5, **HELD_OUT),
    "mixture_stem": FitMixture(("kernels_stem",), "tinyimagenet-stem-7x7", **GRID),
    "by_depth": FitByDepth(("kernels_1", "kernels_2"), "tinyimagenet-3x3", depths=(0.5, 1.0), **GRID),
}
PRIORS = {"tinyimagenet-3x3": "by_depth", "tinyimagenet-stem-7x7": "mixture_stem"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty registry and folders in place of the package's and the cards'."""
    (tmp_path / "registry.json").write_text("{}")
    for module in (registry, release):
        monkeypatch.setattr(module, "REGISTRY", tmp_path / "registry.json")
    for module in (registry, bundle, pages):
        monkeypatch.setattr(module, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(bundle, "CARDS", tmp_path / "cards")
    registry.registry.cache_clear()
    yield tmp_path
    registry.registry.cache_clear()


def test_entries_that_others_write_meanwhile_stay(package: Path) -> None:
    assert registry.registry() == {}
    (package / "registry.json").write_text('{"b": {}}')
    release.write_entry("a", {})
    assert json.loads((package / "registry.json").read_text()) == registry.registry() == {"a": {}, "b": {}}


def test_bundling_needs_a_finished_recipe_that_makes_priors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match=r"stage scale_mixture_7x7 in .* is not finished"):
        bundle.bundle(recipes.load("prior_notmnist_7x7"), tmp_path)
    assert main(["bundle", "apply_cost"]) == 1
    assert "'apply_cost' makes no priors" in capsys.readouterr().err


def test_priors_from_synthetic_data_or_with_other_settings_are_never_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "BUNDLED", tmp_path / "bundled")
    recipe = recipes.load("prior_notmnist_7x7")
    small = recipe.stages(smoke=True)
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path / "runs")]) == 0
    with pytest.raises(ValueError, match="synthetic data"):
        bundle.bundle(recipe, tmp_path / "runs")
    harvested = _prior_of_real_data()
    harvested.details["source"]["checkpoints"] = ["net.pth"]
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: harvested)
    with pytest.raises(ValueError, match=r"1 of 1 networks .* have no licence entry, such as net\.pth"):
        bundle.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: _prior_of_real_data())
    with pytest.raises(ValueError, match=r"other settings than the recipe's: components is \[2\], not \[6, 8, 10\]"):
        bundle.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small | {"sources": dataclasses.replace(small["sources"], epochs=9)})
    with pytest.raises(ValueError, match=r"sources was made with other settings than the recipe's: epochs is 1, not 9"):
        bundle.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small)
    config = tmp_path / "runs" / "sources" / "config.json"
    config.write_text(config.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(ValueError, match=r"was made from another sources than the one in .*; run the recipe again"):
        bundle.bundle(recipe, tmp_path / "runs")
    assert not (tmp_path / "bundled").exists()


@pytest.mark.parametrize(("changed", "kept"), [(False, {"repo": "user/prior", "revision": "0" * 40}), (True, {})])
def test_a_pin_to_the_hub_is_kept_if_and_only_if_the_files_are_the_same(
    changed: bool, kept: dict[str, str], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.load("prior_notmnist_7x7")
    small = recipe.stages(smoke=True)
    monkeypatch.setattr(recipe, "stages", lambda: {name: small[name] for name in ("sources", "kernels_7x7", "h1_7x7")})
    monkeypatch.setattr(recipe, "PRIORS", {"notmnist-7x7-h1": "h1_7x7"})
    monkeypatch.setattr(bundle, "provenance", lambda kernels: {})  # synthetic images leave no digest
    run_stages(recipe.stages(), Context(out=package / "runs", smoke=True))
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: _as_if_of_real_data(fitted_prior(folder), note))
    note = "first"
    assert bundle.bundle(recipe, package / "runs") == ["notmnist-7x7-h1"]
    entries = registry.registry()
    assert entries["notmnist-7x7-h1"].keys().isdisjoint({"repo", "revision"})
    entries["notmnist-7x7-h1"] |= {"repo": "user/prior", "revision": "0" * 40}
    (package / "registry.json").write_text(json.dumps(entries))
    note = "second" if changed else "first"
    bundle.bundle(recipe, package / "runs")
    written = json.loads((package / "registry.json").read_text())["notmnist-7x7-h1"]
    assert {key: written[key] for key in ("repo", "revision") if key in written} == kept
    assert {path.name for path in (package / "cards" / "notmnist-7x7-h1").iterdir()} == {"kernels.png", "latent.png"}


def test_priors_by_depth_and_of_colour_stems_are_bundled(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From several kernels stages: files, entries, pictures, cards without tables of record, rows of the README."""
    runs = package / "runs"
    run_stages(SMALL, Context(out=runs, smoke=True))
    config = json.loads((runs / "sources" / "config.json").read_text())
    del config["data"]["smoke"]
    (runs / "sources" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(bundle, "fitted_prior", lambda folder: _as_if_of_real_data(fitted_prior(folder), ""))
    recipe = ModuleType("recipe")
    vars(recipe).update(stages=lambda: SMALL, PRIORS=PRIORS)
    assert bundle.bundle(recipe, runs) == list(PRIORS) == dwp_init.list_priors()
    by_depth, stem = map(dwp_init.load_prior, PRIORS)
    digests = {"tinyimagenet32-a": config["data"]["tinyimagenet32-a"]["train"]["sha256"]}
    for prior, rule, kind in ((by_depth, [0.25, 0.5], "dense"), (stem, 0.25, "stem")):
        source = prior.details["source"]
        assert (source["min_norm"], source["data_sha256"], source["kind"]) == (rule, digests, kind)
        name = prior.details["name"]
        assert registry.registry()[name]["kernel_shape"] == list(prior.kernel_shape)
        assert (package / "cards" / name / "kernels.png").read_bytes().startswith(b"\x89PNG")
        text = cards.render_card(prior, name)
        check_card(text, prior, ("README.md", "kernels.png"))
        assert '`prior="natural-v1"`, a set' in text
        assert "MIT. Made by `python -m training run prior_tinyimagenet` in a clone" in text
    text = cards.render_card(by_depth, "tinyimagenet-3x3")
    assert "and draws from tinyimagenet-3x3, by depth](kernels.png)" in text
    assert f"| **this prior**, depth known | {by_depth.details['metrics']['log_prob_at_depth']:g} |" in text
    assert "tinyimagenet-stem-7x7, in colour](kernels.png)" in cards.render_card(stem, "tinyimagenet-stem-7x7")
    monkeypatch.setattr(pages, "FIRST_PRIORS", "none")
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in pages.blocks()["priors"].splitlines()[2:4]]
    for row, prior, kernels in zip(rows, (by_depth, stem), ("3×3, by depth", "7×7 RGB stem"), strict=True):
        metrics = prior.details["metrics"]
        found, gaussian = metrics["log_prob"], metrics["gaussian_log_prob"]
        assert row[:2] == [kernels, f"{found:.7g}"]
        lead = "–" if metrics["white_noise_log_prob"] > gaussian else f"{found - gaussian:+.3f}"
        assert row[2:4] == [f"{gaussian:.7g}", lead] and row[4].endswith(" MB")


def test_priors_of_a_harvest_are_bundled(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their source is what the networks were trained on, and the card has the licences and what was held out."""
    manifest = networks_in_a_manifest(package, license="Apache-2.0", trained_on="ImageNet", attribution="A. Author")
    stages = {
        "kernels": HarvestedKernels(manifest=str(manifest), kind="depthwise", size=(5, 5), test=("net2*",)),
        "by_depth": FitByDepth(name="natural-dw5x5", **GRID),
    }
    run_stages(stages, Context(out=package / "runs"))
    recipe = ModuleType("recipe")
    vars(recipe).update(stages=lambda: stages, PRIORS={"natural-dw5x5": "by_depth"})
    assert bundle.bundle(recipe, package / "runs") == ["natural-dw5x5"]
    prior, entry = dwp_init.load_prior("natural-dw5x5"), registry.registry()["natural-dw5x5"]
    assert (entry["source"], entry["license"], prior.depths) == ("ImageNet", "Apache-2.0", (0.7,))
    assert (package / "cards" / "natural-dw5x5" / "kernels.png").read_bytes().startswith(b"\x89PNG")
    text = cards.render_card(prior, "natural-dw5x5")
    check_card(text, prior, ("README.md", "kernels.png"))
    assert "Mean log p of 12 kernels of net2.safetensors, held out completely, in nats per kernel" in text
    assert "| net0.safetensors | Apache-2.0 | A. Author | ImageNet |  |" in text and "license: apache-2.0" in text
    assert "| 5×5 depthwise, by depth |" in pages.blocks()["priors"]


def test_provenance_is_of_all_kernels_stages(tmp_path: Path) -> None:
    for name, images in (("one", "cifar10"), ("two", "mnist")):
        for folder, config in (
            (f"sources_{name}", {"data": {images: {"train": {"sha256": f"digest of {images}"}}}}),
            (f"kernels_{name}", {"settings": {"needs": [f"sources_{name}"], "min_norm": 0.25}}),
        ):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "config.json").write_text(json.dumps(config))
    both = [tmp_path / "kernels_one", tmp_path / "kernels_two"]
    digests = {"cifar10": "digest of cifar10", "mnist": "digest of mnist"}
    assert bundle.provenance(both) == {"min_norm": 0.25, "data_sha256": digests}
    assert bundle.provenance(both[:1])["data_sha256"] == {"cifar10": "digest of cifar10"}


def _as_if_of_real_data(prior: dwp_init.Prior, note: str) -> dwp_init.Prior:
    prior.details["source"] |= {"synthetic": False, "note": note}
    return prior


def _prior_of_real_data() -> dwp_init.Prior:
    prior = dwp_init.Gaussian((1, 7, 7))
    prior.details = {"source": {"synthetic": False}}
    return prior
