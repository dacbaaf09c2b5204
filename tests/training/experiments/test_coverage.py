from torch import nn

from training.experiments.coverage import coverage_table, layers_left


def test_layers_that_are_left_are_counted_by_kind_and_reason() -> None:
    left = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 2))
    nn.init.zeros_(left[2].weight)
    rows = [{"drawn": 1, "left": layers_left(network, "natural")} for network in (left, left[:1])]
    kinds = ["dense 2×2, no prior", "dense 3×3, its author's", "depthwise 5×5, no prior"]
    assert [row["left"] for row in rows] == ["; ".join(f"{kind}: 1" for kind in kinds), ""]
    table = {row["layers_of"]: (row["layers"], row["models"]) for row in coverage_table(rows)}
    whole = {"all": (5, 2), "initialised": (2, 2), "models initialised whole": (1, 1)}
    assert table == whole | dict.fromkeys(kinds, (1, 1))
