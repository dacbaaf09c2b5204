"""The built site on a server of the loopback interface, and Debian's Chromium to visit it.

Tests are skipped without the site or the browser, unless ``SITE_TESTS=insist`` is set, as ``.ci/site`` does.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.browser.visits import DESKTOP, FLAGS, PHONE, SITE, Visit, served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def need(found: object, reason: str) -> None:
    """Skips a test, or a module, that lacks something; fails where tests of the site are insisted on."""
    if not found and os.environ.get("SITE_TESTS") == "insist":
        pytest.fail(reason)
    if not found:
        pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of the site."""
    need((SITE / "index.html").exists(), "needs the built site: python -m mkdocs build --strict")
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Starts browsers with a profile of their own."""
    program = shutil.which("chromium")
    need(program, "needs Chromium: apt-get install chromium")
    need(find_spec("playwright"), "needs the docs extra: pip install -e '.[docs]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:

        def start(**options: Any) -> Any:
            profile = tmp_path_factory.mktemp("profile")
            return running.chromium.launch_persistent_context(
                profile, executable_path=program, args=FLAGS, headless=True, **options
            )

        yield start


@pytest.fixture(scope="session")
def browsers(launch: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """A browser of a desk and one of a phone, light and dark."""
    sizes, schemes = {"desktop": DESKTOP, "phone": PHONE}, ("light", "dark")
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
