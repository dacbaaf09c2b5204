import re
from pathlib import Path

import pytest

from training import cards, tables


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


def test_a_missing_result_names_its_recipe_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m training list"):
        cards.pages()
