"""Source networks one by one against a torch.func ensemble of them, on one CPU core.

    python -m training run source_throughput --record

Expected: no figure; the paper does not state how its source networks were trained side by side.
Found: ``training/results/source_throughput.csv``; run it on an idle machine.
"""

from training.engine.stage import Stage
from training.experiments.costs import SourceThroughput

FOLDER = "benchmarks"


def stages(smoke: bool = False) -> dict[str, Stage]:
    return {
        "source_throughput": SourceThroughput(networks=2, filters=(4, 4), repeats=1) if smoke else SourceThroughput()
    }
