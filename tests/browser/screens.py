"""Takes the pictures of the documentation's first page, of the built site and of the demonstration.

python -m tests.browser.screens
"""

import io
import shutil
from typing import Any

from PIL import Image

from space.interface import launch
from tests.browser.visits import FLAGS, PHONE, ROOT, SITE, served
from training.figures.webp import webp_bytes

DESK: dict[str, Any] = {"viewport": {"width": 1100, "height": 760}}
FOLDER = ROOT / "docs" / "assets" / "screens"


def main() -> None:
    from playwright.sync_api import sync_playwright

    _, space, _ = launch(prevent_thread_lock=True, quiet=True)
    with served(SITE) as site, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def opened(address: str, **options: Any) -> Any:
            page = browser.new_context(**options).new_page()
            page.goto(address)
            return page

        _take(opened(f"{site}priors/", **DESK), "gallery")
        page = opened(f"{site}priors/natural-dw5x5/#draws", **DESK, color_scheme="dark")
        page.click("button[name=again]")
        page.locator("form.draw canvas").wait_for()
        page.locator("form.draw").scroll_into_view_if_needed()
        _take(page, "prior-dark")
        _take(opened(f"{site}priors/natural/", **PHONE | {"viewport": {"width": 390, "height": 760}}), "set-phone")
        page = opened(space, **DESK)
        page.get_by_role("button", name="Draw kernels").click(timeout=60_000)
        page.locator(".dwp table").first.wait_for()
        _take(page, "space")
        browser.close()


def _take(page: Any, name: str) -> None:
    page.wait_for_timeout(1000)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        path = FOLDER / f"{name}.webp"
        path.write_bytes(webp_bytes(picture, step=15))
    print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
