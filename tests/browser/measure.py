"""Measures the documentation site against its budget.

python -m tests.browser.measure build: builds it strictly, and fails if that takes too long.
python -m tests.browser.measure record: does that, visits the page of each prior and set, and records the figures.
"""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from dwp_init import SETS
from dwp_init.registry import registry
from tests.browser.visits import DESKTOP, FLAGS, ROOT, SITE, Visit, served

BYTES, INTERACTIVE_S, BUILD_S = 500_000, 1, 60
PAGES = tuple(f"priors/{name}/" for name in (*SETS, *registry()))


def build() -> dict[str, float]:
    """Builds the site and returns the seconds by the clock and of the processor."""
    shutil.rmtree(SITE, ignore_errors=True)
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    after, seconds = os.times(), time.perf_counter() - start
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"clock_s": round(seconds, 1), "processor_s": round(used, 1)}


def weights() -> list[dict[str, object]]:
    """Visits the page of each prior and set in a new browser."""
    from playwright.sync_api import sync_playwright

    rows: list[dict[str, object]] = []
    with served(SITE) as site, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for path in PAGES:
            weight = Visit(browser.new_context(**DESKTOP).new_page(), site).weigh(path)
            rows.append({"page": path} | weight._asdict() | {"interactive_s": round(weight.interactive_s, 2)})
        browser.close()
    return rows


def main(what: str) -> int:
    built = build()
    print(built)
    if what == "record":
        _write("site_build", [built])
        _write("site_pages", weights())
    return int(built["processor_s"] > BUILD_S)


def _write(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    path = ROOT / "training" / "results" / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
