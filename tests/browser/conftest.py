"""The built site on a server of the loopback interface, and Debian's Chromium to visit it.

Tests are skipped without the site or the browser, unless ``SITE_TESTS=insist`` is set, as ``.ci/site`` does.
"""

import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SITE, AXE = ROOT / "build" / "site", ROOT / "build" / "axe" / "package" / "axe.min.js"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [f"--disable-{feature}" for feature in ("background-networking", "component-update", "sync")]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def need(found: object, reason: str) -> None:
    """Skips a test that lacks something, or fails where tests of the site are insisted on."""
    if not found and os.environ.get("SITE_TESTS") == "insist":
        pytest.fail(reason)
    if not found:
        pytest.skip(reason)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keeps the output of tests short."""


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of the site."""
    need((SITE / "index.html").exists(), "needs the built site: python -m mkdocs build --strict")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Starts browsers with a profile of their own."""
    program = shutil.which("chromium")
    need(program, "needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the docs extra: pip install -e '.[docs]'")
    with playwright.sync_playwright() as running:

        def start(**options: Any) -> Any:
            profile = tmp_path_factory.mktemp("profile")
            return running.chromium.launch_persistent_context(
                profile, executable_path=program, args=FLAGS, headless=True, **options
            )

        yield start


class Visit:
    """A page of the browser, which remembers what went wrong: errors of the console, requests to other hosts."""

    def __init__(self, page: Any, site: str) -> None:
        self.page, self.site, self.faults = page, site, list[str]()
        page.on("console", lambda message: self._note(message.type in ("error", "warning"), message.text))
        page.on("pageerror", lambda error: self._note(True, str(error)))
        page.on("request", lambda request: self._note(not request.url.startswith(site), f"request to {request.url}"))
        page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status} {answer.url}"))

    def _note(self, wrong: bool, text: str) -> None:
        if wrong:
            self.faults.append(text)

    def go(self, path: str) -> Any:
        """Opens a page of the site and waits until all is loaded."""
        self.page.goto(self.site + path, wait_until="networkidle")
        return self.page


@pytest.fixture(scope="session")
def browsers(launch: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """A browser of a desk and one of a phone, light and dark."""
    sizes = {"desktop": {"viewport": DESKTOP}, "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True}}
    schemes = ("light", "dark")
    found = {f"{size} {s}": launch(**options, color_scheme=s) for size, options in sizes.items() for s in schemes}
    yield found
    for each in found.values():
        each.close()


@pytest.fixture
def visit(request: pytest.FixtureRequest, browsers: dict[str, Any], site: str) -> Iterator[Visit]:
    """A new page on a desk, or where the parameter says; whatever went wrong fails the test at its end."""
    page = browsers[getattr(request, "param", "desktop light")].new_page()
    visit = Visit(page, site)
    yield visit
    page.close()
    assert visit.faults == []
