"""Measures the documentation site against its budget.

python -m tests.browser.measure build: builds it strictly, and fails if that takes too long.
python -m tests.browser.measure record: does that, visits the page of each prior and set, and records the figures.

Times are those of an otherwise idle machine: of a build by the clock, less the time in which it was ready to run and
other processes had the processor; of a page both by the clock, which other processes lengthen, and of the processor.
"""

import csv
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dwp_init import SETS
from dwp_init.registry import registry
from tests.browser.visits import DESKTOP, FLAGS, ROOT, SITE, Visit, served

BYTES, INTERACTIVE_S, BUILD_S = 500_000, 1, 60
PAGES = tuple(f"priors/{name}/" for name in (*SETS, *registry()))


def build() -> dict[str, float]:
    """Builds the site in this process, and returns the seconds that it took, see :func:`seconds_of`."""
    from mkdocs.__main__ import cli

    shutil.rmtree(SITE, ignore_errors=True)
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    os.chdir(ROOT)
    return seconds_of(lambda: cli.main(["build", "--quiet", "--strict"], standalone_mode=False))


def seconds_of(work: Callable[[], object]) -> dict[str, float]:
    """Returns how long the work of this thread takes: by the clock, without waits for the processor, and of it."""
    start, used, waited = time.perf_counter(), time.process_time(), _waited()
    work()
    clock = time.perf_counter() - start
    found = {
        "clock_s": clock,
        "idle_machine_s": clock - (_waited() - waited),
        "processor_s": time.process_time() - used,
    }
    return {name: round(value, 1) for name, value in found.items()}


def _waited() -> float:
    """Seconds in which this thread was ready to run and did not; 0 where the system does not say."""
    stat = Path("/proc/thread-self/schedstat")
    return int(stat.read_text().split()[1]) / 1e9 if stat.exists() else 0.0


def weights() -> list[dict[str, object]]:
    """Visits the page of each prior and set for the first time, three times over; times are medians."""
    from playwright.sync_api import sync_playwright

    rows: list[dict[str, object]] = []
    with served(SITE) as site, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for path in PAGES:
            weight = Visit(browser.new_context(**DESKTOP).new_page(), site).weigh(path)
            rows.append({"page": path} | {name: round(value, 3) for name, value in weight._asdict().items()})
        browser.close()
    return rows


def main(what: str) -> int:
    built = build()
    print(built)
    if what == "record":
        _write("site_build", [built])
        _write("site_pages", weights())
    return int(built["idle_machine_s"] > BUILD_S)


def _write(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    path = ROOT / "training" / "results" / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
