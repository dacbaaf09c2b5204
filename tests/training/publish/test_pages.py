"""Pages of record: they are what the results give, and nothing in them is written by hand."""

import itertools
import re
from pathlib import Path

import pytest

from dwp_init import Gaussian, MixtureByDepth, Prior, load_prior
from dwp_init.registry import registry
from tests.training.publish.example_priors import FILES, card_data, licensed, parts
from training.__main__ import main
from training.experiments.paired import Lead
from training.publish import benchmark_page, pages, results, templates
from training.publish.check import check_card
from training.recipes import prior_domains


def test_pages_are_those_that_the_results_give() -> None:
    written = pages.pages()
    assert len(written) == 28
    for path, text in written.items():
        assert path.read_text() == text, f"{path} is stale; run python -m training cards"
        assert not re.search(r"\{\{|\{%|\n\n\n", text)
        pictures = re.findall(r"\]\((\w+\.png)\)", text)
        expected = ["kernels.png", "latent.png"] if path.parent.name == "notmnist-7x7-h1" else ["kernels.png"]
        others = list(benchmark_page.PICTURES) if path.name == "benchmark.md" else []
        assert pictures == (expected if path.parent.parent == templates.CARDS else others)
        assert all((path.parent / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_tables_end_with_an_empty_line() -> None:
    """Otherwise the paragraph below becomes a row."""
    for path, text in pages.pages().items():
        lines = text.splitlines()
        ends = [(a, b) for a, b in itertools.pairwise(lines) if a.startswith("|") and b and b[0] not in "|<"]
        assert ends == [], path


@pytest.mark.parametrize("name", registry())
def test_a_bundled_card_says_what_its_config_says(name: str) -> None:
    prior = load_prior(name)
    text = (templates.CARDS / name / "README.md").read_text()
    check_card(text, prior, [*FILES, "latent.png"])
    data, recorded = card_data(text), results.size_of_record(name) is not None
    channels, *size = prior.kernel_shape
    of_kernels = [f"kernel-{'x'.join(map(str, size))}", *([f"kernel-channels-{channels}"] if channels > 1 else [])]
    assert data.license == registry()[name]["license"].lower()
    assert (data.library_name, data.pipeline_tag, data.datasets) == ("dwp_init", None, None)
    assert data.tags == [
        "dwp-prior",
        "weight-initialization",
        "deep-weight-prior",
        *(["kernel-up-to-16x16"] if name == "natural-stem" else of_kernels),
        *(["depthwise"] if prior.details["source"].get("kind") == "depthwise" else []),
        f"family-{prior.family}",
        "pytorch",
    ]
    images = {
        "notmnist": "notMNIST",
        "tinyimagenet32-a": "the first 100 classes of Tiny ImageNet at 32×32",
        "tinyimagenet32-a[70:100]": "15,000 images of 30 classes of Tiny ImageNet at 32×32",
    }
    source = registry()[name]["source"]
    assert images.get(source, source) in text
    if "metrics" in prior.details:
        (result,) = data.eval_results
        assert data.model_name == name
        assert result.metric_value == prior.details["metrics"]["log_prob"] == registry()[name]["log_prob"]
        assert result.metric_name == "log p, nats per kernel" + ("" if prior.exact else " (lower bound)")
    assert ("ot measured:" not in text) == recorded == name.startswith("notmnist-")
    assert "Made by `python -m training run prior_" in parts(text)["Licence"]
    assert f'report = dwp_init.apply_(model, prior="{name}")' in parts(text)["Use"]
    assert ("not shown to be better than a Gaussian" in text) == (name == "notmnist-7x7-h1")


@pytest.mark.parametrize(
    ("prior", "kind", "note"),
    [
        (Gaussian((1, 7, 7)), None, "7×7"),
        (Gaussian((1, 7, 7)), "stem", "7×7"),
        (Gaussian((3, 7, 7)), "stem", "7×7 RGB stem"),
        (Gaussian((3, 7, 7)), "*", "7×7 of 3 channels"),
        (MixtureByDepth((1, 3, 3)), "dense", "3×3, by depth"),
        (MixtureByDepth((1, 3, 3)), "depthwise", "3×3 depthwise, by depth"),
    ],
)
def test_the_table_of_the_readme_says_what_kernels_a_prior_has(
    prior: Prior, kind: str | None, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "load_prior", lambda name: licensed(prior, source={"kind": kind}))
    table = pages.blocks()["priors"]
    assert f"\n| [`natural-dw3x3`](model_cards/natural-dw3x3/README.md) | {note} | – |  |  | 0.05 MB |" in table


def test_the_readme_names_all_priors_but_other_families_once() -> None:
    *table, last = pages.blocks()["priors"].splitlines()
    rows = [line.split("`")[1] for line in table[2:-1]]
    others, first = (re.findall(r"\[`([^`]+)`\]", part) for part in last.split("Of the first edition"))
    assert others == sorted(prior_domains.PRIORS) and len(first) == 6
    expected = {name for name in registry() if not name.endswith(pages.OTHER_FAMILIES)}
    assert sorted([*rows, *others, *first]) == sorted(expected)


def test_figures_of_the_paper_stand_next_to_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {scale: {"accuracy": "60.25", "sd": "0.5"} for scale in ("0.125", "1.0")}
    steps = {"-200.0": {"steps": "10.0", "steps_sd": "1.0"}, "-97.0": {"steps": "", "reached": "1", "seeds": "2"}}
    leads = {("dwp", "-200.0"): Lead(-30.25, 4.0, 0.01, 2)}
    found = {"Xavier": steps, "dwp": steps}
    figures = {
        "fig3b": results.PaperFigure({"Xavier": features}, 3, {}, set()),
        "fig4a": results.PaperFigure(found, 2, leads, {("dwp", "-200.0")}),
    }
    monkeypatch.setattr(results, "figures", lambda: figures)
    text = pages.pages()[templates.CARDS / "paper_figures.md"].split("## The paper's Fig. 3 and 4")[1]
    assert [line for line in text.splitlines() if line.startswith("|")] == [
        "| init | k = 1/8 | k = 1 |",
        "|---|---|---|",
        "| Xavier | 60.2 ± 0.5 | 60.2 ± 0.5 |",
        "| *the paper's dwp* | 63.7 ± 0.55 | 68.95 ± 0.63 |",
        "| *the paper's xavier* | 62.15 ± 0.46 | 65.6 ± 0.35 |",
        "| *the paper's filters* | 65.29 ± 1.53 | 71.02 ± 0.65 |",
        "| init | -200 | -97 |",
        "|---|---|---|",
        "| Xavier | 10.0 ± 1.0 | reached by 1 of 2 |",
        "| dwp | ≤ 10 | reached by 1 of 2 |",
        "| *dwp: steps more than Xavier* | **-30.2 ± 4.0** |  |",
        "| *the paper's dwp* | 33 | 521 |",
        "| *the paper's filters* | 35 | 603 |",
        "| *the paper's xavier* | 101 | 837 |",
    ]


def test_a_block_that_the_readme_lacks_is_an_error() -> None:
    text = "<!-- a -->\nold\n<!-- /a -->\nrest <!-- b -->"
    assert pages.fill_blocks(text, {"a": r"\1 new"}) == "<!-- a -->\n\\1 new\n<!-- /a -->\nrest <!-- b -->"
    with pytest.raises(ValueError, match=r"README\.md has no block <!-- b --> … <!-- /b --> to fill"):
        pages.fill_blocks(text, {"b": "text"})


def test_the_command_writes_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pages", lambda: {tmp_path / "new" / "page.md": "text"})
    monkeypatch.setattr(pages.benchmark_page, "draw_pictures", lambda folder: (folder / "drawn").touch())
    monkeypatch.setattr(pages, "CARDS", tmp_path)
    assert main(["cards"]) == 0 and (tmp_path / "drawn").exists()
    assert (tmp_path / "new" / "page.md").read_text() == "text"
