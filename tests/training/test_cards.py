import dataclasses
import re
from pathlib import Path

import pytest

import dwp_init
from training import cards, recipes, tables
from training.__main__ import main


def test_pages_are_those_that_the_results_give() -> None:
    """No number by hand: cards and the README's tables are what ``python -m training cards`` writes."""
    pages = cards.pages()
    assert len(pages) == 8
    for path, text in pages.items():
        assert path.read_text() == text, f"{path} is stale; run python -m training cards"
        assert "$" not in text.replace("$\n", "")


def test_every_bundled_prior_has_a_card_with_a_picture() -> None:
    for path in cards.pages():
        if path.name == "README.md" and path.parent != cards.ROOT:
            pictures = re.findall(r"\]\((\w+\.png)\)", path.read_text())
            assert pictures == (
                ["kernels.png", "latent.png"] if path.parent.name == "notmnist-7x7-h1" else ["kernels.png"]
            )
            for picture in pictures:
                assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_bundling_needs_a_finished_recipe_that_makes_priors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match=r"stage scale_mixture_7x7 in .* is not finished"):
        cards.bundle(recipes.load("prior_notmnist_7x7"), tmp_path)
    assert main(["bundle", "apply_cost"]) == 1
    assert "'apply_cost' makes no priors" in capsys.readouterr().err


def test_a_prior_from_synthetic_data_is_never_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path / "runs")]) == 0
    with pytest.raises(ValueError, match="synthetic data"):
        cards.bundle(recipes.load("prior_notmnist_7x7"), tmp_path / "runs")
    assert not (tmp_path / "bundled").exists()


def test_a_missing_result_names_its_recipe_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m training list"):
        cards.pages()


def test_a_prior_made_with_other_settings_is_never_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")
    recipe = recipes.load("prior_notmnist_7x7")
    small = recipe.stages(smoke=True)
    monkeypatch.setattr(cards, "fitted_prior", lambda folder: _prior_of_real_data())
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path / "runs")]) == 0
    with pytest.raises(ValueError, match=r"other settings than the recipe's: components is \[2\], not \[6, 8, 10\]"):
        cards.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small | {"sources": dataclasses.replace(small["sources"], epochs=9)})
    with pytest.raises(ValueError, match=r"sources was made with other settings than the recipe's: epochs is 1, not 9"):
        cards.bundle(recipe, tmp_path / "runs")
    monkeypatch.setattr(recipe, "stages", lambda: small)
    config = tmp_path / "runs" / "sources" / "config.json"
    config.write_text(config.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(ValueError, match=r"was made from another sources than the one in .*; run the recipe anew"):
        cards.bundle(recipe, tmp_path / "runs")
    assert not (tmp_path / "bundled").exists()


def _prior_of_real_data() -> dwp_init.Prior:
    prior = dwp_init.Gaussian((1, 7, 7))
    prior.details = {"source": {"synthetic": False}}
    return prior
