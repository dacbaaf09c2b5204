"""Every page in a browser: errors, other hosts, links, width on a phone, accessibility; and what a page weighs."""

import gzip
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from dwp_init.registry import registry
from tests.browser.conftest import AXE, SITE, Visit, need

EVERY = sorted(path.relative_to(SITE).parent.as_posix() + "/" for path in SITE.rglob("index.html"))
LOOKED_AT = ("", "priors/", "priors/notmnist-7x7/", "priors/natural/", "tutorials/timm/", "reference/initialise/")
SHIFTS = """() => new Promise((resolve) => {
  let total = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => (total += entry.value)))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(total), 300);
})"""


class _Links(HTMLParser):
    """Collects what a page links to, and the places in it that can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets, self.places = list[str](), set[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.targets += [found[key] or "" for key in ("href", "src", "data-model") if key in found]
        self.places |= {found[key] or "" for key in ("id", "name") if key in found}


def test_links_of_every_page_lead_to_a_file_and_to_a_place_in_it(site: str) -> None:
    pages = {urljoin(site, path): _Links(SITE / path / "index.html") for path in EVERY}
    pages[site] = pages.pop(urljoin(site, "./"), None) or _Links(SITE / "index.html")
    broken = []
    for address, page in pages.items():
        for target in page.targets:
            whole, place = urldefrag(urljoin(address, target))
            if not whole.startswith(site):
                continue
            path = SITE / unquote(whole.removeprefix(site))
            lost = not (path / "index.html" if path.is_dir() else path).exists()
            if lost or (place and whole in pages and unquote(place) not in pages[whole].places | {"__comments"}):
                broken.append(f"{address} → {target}")
    assert len(pages) > 30 and broken == []


@pytest.mark.parametrize("visit", ["phone light"], indirect=True)
def test_pages_are_quiet_and_as_wide_as_a_phone(visit: Visit) -> None:
    wide = []
    for path in EVERY:
        page = visit.go(path)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    assert len(EVERY) > 30 and wide == []


@pytest.mark.parametrize("visit", ["phone light", "phone dark"], indirect=True)
@pytest.mark.parametrize("path", LOOKED_AT)
def test_nothing_moves_while_a_page_loads_on_a_phone(path: str, visit: Visit) -> None:
    page = visit.go(path)
    page.mouse.wheel(0, 2000)
    assert page.evaluate(SHIFTS) < 0.01


@pytest.mark.parametrize("visit", ["desktop light", "desktop dark", "phone light"], indirect=True)
@pytest.mark.parametrize("path", LOOKED_AT)
def test_axe_finds_no_serious_fault(path: str, visit: Visit) -> None:
    need(AXE.exists(), "needs axe-core in build/axe: npm pack axe-core")
    page = visit.go(path)
    page.add_script_tag(path=AXE)
    found: dict[str, Any] = page.evaluate("axe.run()")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert len(found["passes"]) > 10
    assert [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in serious] == []


@pytest.mark.parametrize("name", registry())
def test_a_priors_page_is_light_and_soon_interactive(name: str, visit: Visit) -> None:
    bodies: dict[str, bytes] = {}
    visit.page.on("response", lambda answer: bodies.setdefault(answer.url, answer.body()))
    seconds = []
    for _ in range(3):
        page = visit.go(f"priors/{name}/")
        seconds.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000)
    assert {url.rpartition(".")[2] for url in bodies} >= {"css", "js", "json", "png"}
    assert sum(len(gzip.compress(body)) for body in bodies.values()) <= 500_000  # as hosts of static pages send them
    assert min(seconds) < 1
