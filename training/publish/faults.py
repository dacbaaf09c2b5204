"""What the page on faults gets: counts of ``python -m tests.fuzz``, by kind of input and of disturbance."""

from collections import Counter, defaultdict
from typing import Any

from training import recipes
from training.engine.records import Row
from training.publish.results import read_record

FAULTS = ("crash", "silent", "slow", "large")  # columns of faults.csv
GOOD = {"resumed, the same": "same", "said what to remove, then the same": "removed", "ended before it": "before"}
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
ONCE = "alone"  # the run of a folder that was disturbed once, in the first rows
WITHOUT = ("engine_cost",)  # starts clusters of Ray
_FOLDERS = ("prior folders", "kernel data sets", "run folders")
_HUB = ("answers of the Hub", "publishing")
_MODELS = ("models",)
_Place = tuple[str, str]  # the folder of a recipe, and a stage there


def fault_values() -> dict[str, Any]:
    """Returns the rows of the tables of the page, and their sums."""
    rows, kills = read_record("faults"), read_record("kills")
    ways = {(row["kill"], row["moment"]): way_row(kills, row["kill"], row["moment"]) for row in kills}
    folders = Counter((row["recipe"], row["stage"], row["run"]) for row in kills if _was_disturbed(row))
    return {
        "rows": [row | {"faults": sum(int(row[name]) for name in FAULTS)} for row in rows],
        "ways": list(ways.values()),
        "classes": class_rows(kills),
        "folders": _tries(rows, _FOLDERS),
        "hub": _tries(rows, _HUB),
        "models": _tries(rows, _MODELS),
        "kills": sum(way["kills"] for way in ways.values() if way["kill"] in SIGNALS),
        "other": sum(way["kills"] for way in ways.values() if way["kill"] not in SIGNALS),
        "met": len({(recipes.load(row["recipe"]).FOLDER, row["stage"]) for row in kills} & _stages().keys()),
        "alone": sum(row["run"].startswith(ONCE) and _was_disturbed(row) for row in kills),
        "runs": len(folders),
        "again": sum(count > 1 for count in folders.values()),
        "faults": sum(int(row[name]) for row in rows for name in FAULTS) + sum(way["faults"] for way in ways.values()),
    }


def _was_disturbed(row: Row) -> bool:
    """Whether the disturbance came before the run had ended."""
    return GOOD.get(row["outcome"]) != "before"


def way_row(kills: list[Row], kill: str, moment: str) -> dict[str, Any]:
    """Counts what came of disturbing stages in one way; one that had ended before was not disturbed."""
    found = Counter(
        GOOD.get(row["outcome"], "faults") for row in kills if (row["kill"], row["moment"]) == (kill, moment)
    )
    counts = {name: found[name] for name in ("same", "removed", "before", "faults")}
    return {"kill": kill, "moment": moment, "kills": found.total() - found["before"], **counts}


def class_rows(kills: list[Row]) -> list[dict[str, Any]]:
    """Counts kills by class of stages and signal, with the fewest of any signal at any stage of the class."""
    met: defaultdict[_Place, Counter[str]] = defaultdict(Counter)
    for row in kills:
        if _was_disturbed(row):
            met[recipes.load(row["recipe"]).FOLDER, row["stage"]][row["kill"]] += 1
    places: defaultdict[str, list[_Place]] = defaultdict(list)
    for place, kind in _stages().items():
        places[kind].append(place)
    return [
        {
            "class": kind,
            "stages": len(found),
            **{signal: sum(met[place][signal] for place in found) for signal in SIGNALS},
            "fewest": min(met[place][signal] for place in found for signal in SIGNALS),
            "other": sum(count for place in found for kill, count in met[place].items() if kill not in SIGNALS),
        }
        for kind, found in sorted(places.items())
    ]


def _stages() -> dict[_Place, str]:
    """The class of each stage of all recipes; those that several recipes share are there once."""
    loaded = [recipes.load(name) for name in recipes.names() if name not in WITHOUT]
    return {
        (recipe.FOLDER, name): type(stage).__name__
        for recipe in loaded
        for name, stage in recipe.stages(smoke=True).items()
    }


def _tries(rows: list[Row], kinds: tuple[str, ...]) -> int:
    return sum(int(row["tries"]) for row in rows if row["kind"].startswith(kinds))
