"""The documentation site: pages that are made from cards, pages and results next to those of ``docs/``.

A hook of ``mkdocs.yml``. Links in Markdown are those of the clone, so that they work there too; here they are turned
into links of the site.
"""

import json
import os.path
import re
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from PIL import Image

from dwp_init.registry import registry
from training.engine.records import ROOT
from training.figures.webp import webp_bytes
from training.publish.gallery import gallery_curves, gallery_models, gallery_pages, gallery_pictures
from training.publish.notebooks import notebook_of
from training.publish.pages import BLOCKS, blocks, fill_blocks

INCLUDED = {  # pages of the site that are files of the clone elsewhere than in docs/
    "benchmark.md": "model_cards/benchmark.md",
    "benchmark-200-steps.md": "model_cards/benchmark_200_steps.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "faults.md": "model_cards/faults.md",
    "lifecycles.md": "model_cards/lifecycles.md",
    "paper/families.md": "model_cards/families.md",
    "paper/few-labels.md": "model_cards/few_labels.md",
    "paper/figures.md": "model_cards/paper_figures.md",
    "pipeline.md": "training/README.md",
    "security.md": "SECURITY.md",
}
CARDS_OF = {f"priors/{name}.md": f"model_cards/{name}/README.md" for name in registry()}  # pages made from cards
NOTEBOOKS = ("tutorials/few-labels.md", "tutorials/timm.md")  # pages that are notebooks too
_TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")  # of a link or a picture, within the clone
_STEP = 15  # of colours, in figures
_TAG = re.compile(r"</?[a-z][^>]*>")
SEARCHED = 120  # characters of a function's text, or of a sentence, in the search index
_IN_SHORT = (
    "training/README.md",
    "model_cards/",
    "CHANGELOG",
    "CONTRIBUTING",
    "SECURITY",
)  # how the sources of pages begin that are indexed in short
_CODE = re.compile(r"<pre.*?</pre>", re.DOTALL)
_PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.:]) (?=[A-Z«])")
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_SECTIONS = re.compile(r" (?:Parameters|Attributes|Returns|Raises|Examples): ")
_HEADS = re.compile(r"\b(?:Name +)?Type +Description( +Default)?\b")
_PICTURE = re.compile(r"!\[[^\]]*\]\((?![a-z]+:|/)([^)\s#]+)\)(?!\{)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#|/)([^)\s#]+)[^)]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are elsewhere in the clone, and the gallery."""
    included = {uri: (ROOT / path).read_text(encoding="utf-8") for uri, path in INCLUDED.items()}
    for uri, content in (included | gallery_pages() | gallery_pictures() | gallery_curves()).items():
        files.append(File.generated(config, uri, content=content))
    for uri in NOTEBOOKS:
        notebook = jupytext.writes(notebook_of((ROOT / "docs" / uri).read_text(encoding="utf-8")), fmt="ipynb")
        files.append(File.generated(config, uri.replace(".md", ".ipynb"), content=notebook))
    for uri, path in gallery_models().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills the blocks of results, and turns links of the clone into links of the site."""
    uri = page.file.src_uri
    here = PurePosixPath((INCLUDED | CARDS_OF).get(uri, f"docs/{uri}"))
    named = [name for name in BLOCKS if f"<!-- {name} -->" in markdown]
    rendered = blocks() if named else {}
    readme = PurePosixPath("README.md")
    filled = {name: rewrite_links(rendered[name], readme, uri, files, config) for name in named}
    return rewrite_links(fill_blocks(markdown, filled), here, uri, files, config)


def on_post_build(config: MkDocsConfig) -> None:
    """Makes the text of the search index, which every page loads, plain and short.

    Of pages that are made from cards and results, and of those on the pipeline and for contributors, it has the titles
    with the sentence below, of the reference what functions do, and of other pages all, except that code is represented
    by the names in it, such as ``fan_in``.
    """
    path = Path(config.site_dir) / "search" / "search_index.json"
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    index["docs"] = [
        entry | {"text": indexed_text(entry["location"], entry["text"])}
        for entry in index["docs"]
        if not re.match("priors/.*#", entry["location"])  # the same sections on each page
    ]
    path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def indexed_text(location: str, html: str) -> str:
    """Returns what the search index has of a section, as plain text.

    Args:
        location: The page, from the site's root, and the place in it.
        html: The section.
    """
    page = location.partition("#")[0]
    source = INCLUDED.get(f"{page.rstrip('/')}.md", "")
    if page.startswith("priors/") or source.startswith(_IN_SHORT):
        first = _PARAGRAPH.search(html)
        return shorten(_SENTENCE.split(plain_text(first[1]))[0], SEARCHED, placeholder=" …") if first else ""
    text = plain_text(_CODE.sub(" ", html))
    if page.startswith("reference/"):
        text = shorten(_SECTIONS.split(text)[0], SEARCHED, placeholder=" …")
    names = dict.fromkeys(_NAME.findall(plain_text(html)))
    return " ".join([text, *(name for name in names if name not in text)])


def plain_text(html: str) -> str:
    """Returns HTML without its tags and the heads of tables of parameters; what is escaped stays so."""
    return " ".join(_HEADS.sub(" ", _TAG.sub(" ", html)).split())


def rewrite_links(text: str, here: PurePosixPath, uri: str, files: Files, config: MkDocsConfig) -> str:
    """Turns the links of a file of the clone into those of a page of the site.

    What the site has as a page is linked there, other files are added to the site, and links to folders become text.

    Args:
        text: Markdown.
        here: The file, from the clone's root.
        uri: The page, from ``docs/``.
        files: The files of the site.
        config: The configuration of the site.
    """
    places = {path: page for page, path in (INCLUDED | CARDS_OF).items()}

    def is_folder(target: str) -> bool:
        return (ROOT / _within(here, target)).is_dir()

    def placed(match: re.Match[str]) -> str:
        path = _within(here, match[1])
        if path.startswith("docs/"):
            return match[1] if here.parts[0] == "docs" else _relative(path.removeprefix("docs/"), uri)
        if path not in places and (ROOT / path).is_file():
            places[path] = f"files/{re.sub('[.]png$', '.webp', path)}"
            if places[path] not in files.src_uris:
                files.append(File.generated(config, places[path], content=_content(ROOT / path)))
        return _relative(places[path], uri) if path in places else match[1]

    def sized(picture: re.Match[str]) -> str:
        path = ROOT / _within(here, picture[1])
        return f"{picture[0]}{_size(path)}" if path.suffix == ".png" and path.exists() else picture[0]

    text = _LINK.sub(lambda link: link[1] if is_folder(link[2]) else link[0], text)
    text = _PICTURE.sub(sized, text)
    return _TARGET.sub(placed, text)


def _size(path: Path) -> str:
    """The size of a picture, so that nothing moves when it is loaded."""
    with Image.open(path) as picture:
        return f"{{ width={picture.width} height={picture.height} }}"


def _content(path: Path) -> bytes:
    """The content of a file for the site; a PNG becomes WebP."""
    if path.suffix != ".png":
        return path.read_bytes()
    with Image.open(path) as picture:
        return webp_bytes(picture, _STEP)


def _within(here: PurePosixPath, target: str) -> str:
    """The path from the clone's root of what a file links to."""
    return os.path.normpath((here.parent / target).as_posix()).replace(os.sep, "/")


def _relative(target: str, uri: str) -> str:
    return os.path.relpath(target, PurePosixPath(uri).parent).replace(os.sep, "/")
