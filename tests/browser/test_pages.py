"""Every page in a browser: errors, other hosts, links, width on a phone, accessibility; and what a page weighs."""

import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from tests.browser.conftest import need
from tests.browser.measure import BYTES, INTERACTIVE_S, PAGES, seconds_of
from tests.browser.visits import AXE, SITE, Visit

EVERY = sorted(path.relative_to(SITE).parent.as_posix() + "/" for path in SITE.rglob("index.html"))


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


@pytest.mark.parametrize("visit", ["desktop light", "phone dark"], indirect=True)
@pytest.mark.parametrize("path", EVERY)
def test_a_page_is_quiet_stays_in_place_fits_the_screen_and_can_be_read_by_all(path: str, visit: Visit) -> None:
    need(AXE.exists(), "needs axe-core in build/axe: npm pack axe-core")
    page = visit.go(path)
    page.mouse.wheel(0, 2000)
    assert visit.shifts() < 0.01
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert visit.serious_faults() == []


def test_waits_for_the_processor_do_not_count_and_other_waits_do() -> None:
    asleep = seconds_of(lambda: time.sleep(0.3))
    assert asleep["idle_machine_s"] >= 0.3 > asleep["processor_s"]
    end = time.process_time() + 0.3
    at_work = seconds_of(lambda: [None for _ in iter(lambda: time.process_time() < end, False)])
    assert at_work["processor_s"] >= 0.3 and at_work["idle_machine_s"] < at_work["processor_s"] + 0.2


@pytest.mark.parametrize("path", PAGES)
def test_a_priors_page_is_light_and_soon_interactive(path: str, visit: Visit) -> None:
    weight = visit.weigh(path)
    assert weight.requests > 8 and weight.bytes <= BYTES
    assert 0 < weight.processor_s < INTERACTIVE_S


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("brain-mri", "A prior over 3×3×3 convolution kernels"),
        ("bench_frozen_3x3", "convmixer"),
        ("versioning", "Changelog"),
    ],
)
def test_the_search_finds_pages_of_priors_and_results(words: str, found: str, visit: Visit) -> None:
    page = visit.go("")
    page.locator("input.md-search__input").click()
    page.keyboard.type(words)
    page.locator(".md-search-result").filter(has_text=found).wait_for()  # those of the first letters come before


def test_the_search_finds_functions_and_shows_their_text(visit: Visit) -> None:
    page = visit.go("priors/natural/")
    page.locator("input.md-search__input").click()
    page.keyboard.type("fan_in")
    page.locator(".md-search-result").filter(has_text="apply_").wait_for()
    assert "<" not in page.locator(".md-search-result__item").first.inner_text()
