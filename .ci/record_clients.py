"""Writes training/results/hub_clients.csv from the reports of pytest, a column per version of huggingface_hub.

python .ci/record_clients.py VERSION=REPORT.xml ...
"""

import csv
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "training" / "results" / "hub_clients.csv"


def read(report: str) -> dict[str, str]:
    """Returns what became of each test, and the figures that it recorded, such as numbers of requests."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname').removeprefix('tests.')}: {case.get('name')}"
        outcomes = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        found[name] = outcomes[0] if outcomes else "passed"
        found |= {f"{name}: {item.get('name')}": item.get("value") for item in case.iter("property")}
    return found


def main(arguments: list[str]) -> None:
    columns = {version: read(report) for version, _, report in (argument.partition("=") for argument in arguments)}
    tests = list(dict.fromkeys(test for column in columns.values() for test in column))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["test", *(f"huggingface_hub {version}" for version in columns)])
        writer.writerows([test, *(column.get(test, "") for column in columns.values())] for test in tests)


if __name__ == "__main__":
    main(sys.argv[1:])
