"""Debian's Chromium at a site of the loopback interface: what went wrong on a page, and what it weighs."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SITE, AXE = ROOT / "build" / "site", ROOT / "build" / "axe" / "package" / "axe.min.js"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [f"--disable-{feature}" for feature in ("background-networking", "component-update", "sync")]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keeps the output of tests short."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Weight(NamedTuple):
    """What a page loads, in bytes without compression and in files, and how soon it can be used at the first visit.

    Attributes:
        bytes: Of all files.
        requests: Number of files.
        interactive_s: Median time until the page can be used, by the clock.
        processor_s: Median time of the processor for the page until all is loaded, which other processes do not change.
    """

    bytes: int
    requests: int
    interactive_s: float
    processor_s: float


class Visit:
    """A page of the browser, which remembers what went wrong: messages of the console, requests to other hosts.

    Args:
        page: A page of Playwright.
        site: The address of the site.
        wrong: Kinds of messages that go wrong.
    """

    def __init__(self, page: Any, site: str, wrong: tuple[str, ...] = ("error", "warning")) -> None:
        self.page, self.site, self.faults = page, site, list[str]()
        page.on("console", lambda message: self._note(message.type in wrong, message.text))
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

    def weigh(self, path: str, visits: int = 3) -> Weight:
        """Opens a page several times as if for the first time, with nothing in the cache, and scrolls to its end."""
        bodies, seconds, used = dict[str, int](), list[float](), list[float]()

        def note(answer: Any) -> None:
            if answer.url not in bodies:
                bodies[answer.url] = len(answer.body())

        self.page.on("response", note)
        inside = self.page.context.new_cdp_session(self.page)
        inside.send("Network.enable")
        inside.send("Network.setCacheDisabled", {"cacheDisabled": True})
        for _ in range(visits):
            self.page.goto("about:blank")
            inside.send("Performance.enable", {"timeDomain": "threadTicks"})
            self.go(path)
            metrics = inside.send("Performance.getMetrics")["metrics"]
            used.append(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))
            inside.send("Performance.disable")
            seconds.append(self.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
            self.page.evaluate("scrollTo(0, document.body.scrollHeight)")
            self.page.wait_for_load_state("networkidle")
        return Weight(sum(bodies.values()), len(bodies), median(seconds) / 1000, median(used))

    def serious_faults(self) -> list[str]:
        """What axe-core finds on the page that is serious or critical."""
        self.page.add_script_tag(path=AXE)
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        assert len(found["passes"]) > 10
        serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in serious]

    def shifts(self) -> float:
        """How much of the page moved while it was loaded: the sum of layout shifts."""
        return float(self.page.evaluate(_SHIFTS))


_SHIFTS = """() => new Promise((resolve) => {
  let total = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => (total += entry.value)))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(total), 300);
})"""
