"""What the hook of the documentation site makes of links and blocks; the site itself is built by ``.ci/site``."""

import json
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip("mkdocs", reason="needs the docs extra: pip install -e '.[docs]'")

from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from PIL import Image

from training.engine.records import ROOT
from training.publish import site


@pytest.fixture(scope="module")
def config() -> MkDocsConfig:
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins._current_plugin = "the hook"  # as while mkdocs calls it
    return config


@pytest.fixture
def files(config: MkDocsConfig) -> Files:
    return site.on_files(Files([]), config)


@pytest.mark.parametrize(
    ("here", "uri", "text", "expected"),
    [
        ("docs/recipes.md", "recipes.md", "[t](../model_cards/lifecycles.md#ddp)", "[t](lifecycles.md#ddp)"),
        ("docs/how-to/index.md", "how-to/index.md", "[t](../recipes.md)", "[t](../recipes.md)"),
        ("training/README.md", "pipeline.md", "[t](../docs/recipes.md)", "[t](recipes.md)"),
        ("model_cards/families.md", "paper/families.md", "[t](benchmark.md)", "[t](../benchmark.md)"),
        ("README.md", "index.md", "see [the folder](training/results), [it](#it)", "see the folder, [it](#it)"),
        ("README.md", "index.md", "[p](https://openreview.net/a) [x](no-such-file.md)", None),
    ],
)
def test_links_of_the_clone_become_links_of_the_site(
    here: str, uri: str, text: str, expected: str | None, files: Files, config: MkDocsConfig
) -> None:
    assert site.rewrite_links(text, PurePosixPath(here), uri, files, config) == (expected or text)


def test_a_file_that_is_no_page_is_added_once(files: Files, config: MkDocsConfig) -> None:
    text = "![c](../training/results/fig4b.png) ![c](../training/results/fig4b.png)"
    with Image.open(ROOT / "training/results/fig4b.png") as picture:
        size = f"{{ width={picture.width} height={picture.height} }}"  # nothing moves while it loads
    for uri in ("paper/figures.md", "benchmark.md"):
        found = site.rewrite_links(text, PurePosixPath("model_cards/paper_figures.md"), uri, files, config)
        start = "../" if "/" in uri else ""
        assert found.count(f"({start}files/training/results/fig4b.webp){size}") == 2
    assert [file.src_uri for file in files if file.src_uri.startswith("files/")] == [
        "files/training/results/fig4b.webp"
    ]


def test_the_search_index_is_plain_text() -> None:
    head = "Name Type Description Default"
    html = f"<pre><code>sample(n)\n</code></pre> <p>Draws &lt;n&gt;.</p> {head} <code>n</code> <p>How many.</p>"
    assert site.plain_text(html) == "sample(n) Draws &lt;n&gt;. n How many."


def test_the_search_index_has_functions_in_short_and_the_first_sentences_of_pages_of_results(
    config: MkDocsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(config, "site_dir", str(tmp_path))
    text = "<pre><code>f(n, by_name)\n</code></pre> <p>Draws.</p> <p>Parameters: </p> n fan_in"
    table = "<table> <tr> <td>1.5</td> </tr> </table>"
    given = {"reference/#f": text, "faq/": text, "benchmark/#a": table + text.replace("Draws.", "Draws. It is fast.")}
    given |= {"pipeline/#f": text, "changelog/": text}
    given |= {"priors/": text, "priors/natural/": table, "priors/natural/#use": text}
    path = tmp_path / "search" / "search_index.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"docs": [{"location": where, "text": text} for where, text in given.items()]}), "utf-8")
    site.on_post_build(config)
    found = {entry["location"]: entry["text"] for entry in json.loads(path.read_text("utf-8"))["docs"]}
    assert found == {
        "reference/#f": "Draws. by_name fan_in",
        "faq/": "Draws. Parameters: n fan_in by_name",
        "benchmark/#a": "Draws.",
        "pipeline/#f": "Draws.",
        "changelog/": "Draws.",
        "priors/": "Draws.",
        "priors/natural/": "",
    }


def test_every_included_page_is_there_and_read(files: Files) -> None:
    assert {file.src_uri for file in files} >= set(site.INCLUDED)
    assert files.get_file_from_path("security.md").content_string == (ROOT / "SECURITY.md").read_text("utf-8")


def test_blocks_of_results_are_filled(files: Files, config: MkDocsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "blocks", lambda: {"bayes": "1.5 nats, [all](model_cards/benchmark.md)"})
    monkeypatch.setattr(site, "BLOCKS", ("bayes", "cost"))
    page = Page(None, File.generated(config, "index.md", content=""), config)
    markdown = "a\n<!-- bayes -->\n<!-- /bayes -->\n[s](../SECURITY.md)"
    filled = site.on_page_markdown(markdown, page, config, files)
    assert filled == "a\n<!-- bayes -->\n1.5 nats, [all](benchmark.md)\n<!-- /bayes -->\n[s](security.md)"
