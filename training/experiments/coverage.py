"""Which convolutions of public models a set of priors initialises, and which it leaves."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from dwp_init.access import Access
from dwp_init.choice import NO_PRIOR, choose
from dwp_init.plan import Skip
from dwp_init.report import size_text
from dwp_init.rules import load_rules
from training.engine.records import Row

ONLY_BY_NAME = "give its exact name in layers="  # of a reason of apply_


def layers_left(network: nn.Module, prior: str) -> str:
    """Names the kinds and sizes of the spatial convolutions that ``apply_`` leaves, with the reason and number.

    Args:
        network: A network that is as its authors initialise it.
        prior: Name of a set of priors.
    """
    plan = choose(network, load_rules(prior, Access()), None, resize=False, scale="auto")
    drawn = {layer.name for layer in plan.layers}
    left = Counter(
        f"{layer.kinds[-1]} {size_text(layer.kernel_size)}, {_why(plan.skipped[layer.name])}"
        for layer in plan.convolutions
        if layer.name in plan.spatial and layer.name not in drawn
    )
    return "; ".join(f"{kind}: {number}" for kind, number in sorted(left.items()))


def _why(skip: Skip) -> str:
    if skip.rule:
        return "left by choice"
    if skip.reason.startswith(NO_PRIOR):
        return "no prior"
    return "its author's" if ONLY_BY_NAME in skip.reason else "not possible"


def coverage_table(rows: Sequence[Row]) -> list[Row]:
    """Counts the spatial convolutions that are initialised, and by kind, size and reason those that are not."""
    layers, models, whole = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        left = [each.rsplit(": ", 1) for each in str(row["left"]).split("; ") if each]
        found = {"initialised": row["drawn"], **{kind: int(number) for kind, number in left}}
        layers.update(found)
        models.update(kind for kind, number in found.items() if number)
        if not left:
            whole.update(layers=row["drawn"], models=1)
    total = sum(layers.values())
    table: list[Row] = [{"layers_of": "all", "layers": total, "share": 1.0, "models": len(rows)}]
    for kind, number in layers.most_common():
        table.append({"layers_of": kind, "layers": number, "share": round(number / total, 4), "models": models[kind]})
    share = round(whole["layers"] / total, 4)
    return [
        *table,
        {"layers_of": "models initialised whole", "layers": whole["layers"], "share": share, "models": whole["models"]},
    ]
