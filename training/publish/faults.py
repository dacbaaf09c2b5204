"""What the page on faults gets: counts of ``python -m tests.fuzz``, by kind of input and by way to disturb a stage."""

from collections import Counter
from typing import Any

from training.engine.records import Row
from training.publish.results import read_record

FAULTS = ("crash", "silent", "slow", "large")  # columns of faults.csv
GOOD = {"resumed, the same": "same", "said what to remove, then the same": "removed", "ended before it": "before"}
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
_FOLDERS = ("prior folders", "kernel data sets", "run folders")
_HUB = ("answers of the Hub", "publishing")
_MODELS = ("models",)


def fault_values() -> dict[str, Any]:
    """Returns the rows of both tables of the page, and their sums."""
    rows, kills = read_record("faults"), read_record("kills")
    ways = {(row["kill"], row["moment"]): way_row(kills, row["kill"], row["moment"]) for row in kills}
    return {
        "rows": [row | {"faults": sum(int(row[name]) for name in FAULTS)} for row in rows],
        "ways": list(ways.values()),
        "folders": _tries(rows, _FOLDERS),
        "hub": _tries(rows, _HUB),
        "models": _tries(rows, _MODELS),
        "kills": sum(way["kills"] for way in ways.values() if way["kill"] in SIGNALS),
        "other": sum(way["kills"] for way in ways.values() if way["kill"] not in SIGNALS),
        "stages": len({(row["recipe"], row["stage"]) for row in kills}),
        "recipes": len({row["recipe"] for row in kills}),
        "most": dict(zip(("recipe", "tries"), Counter(row["recipe"] for row in kills).most_common(1)[0], strict=True)),
        "faults": sum(int(row[name]) for row in rows for name in FAULTS) + sum(way["faults"] for way in ways.values()),
    }


def way_row(kills: list[Row], kill: str, moment: str) -> dict[str, Any]:
    """Counts what came of disturbing stages in one way; one that had ended before was not disturbed."""
    found = Counter(
        GOOD.get(row["outcome"], "faults") for row in kills if (row["kill"], row["moment"]) == (kill, moment)
    )
    counts = {name: found[name] for name in ("same", "removed", "before", "faults")}
    return {"kill": kill, "moment": moment, "kills": found.total() - found["before"], **counts}


def _tries(rows: list[Row], kinds: tuple[str, ...]) -> int:
    return sum(int(row["tries"]) for row in rows if row["kind"].startswith(kinds))
