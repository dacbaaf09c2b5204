"""The cost of running trainings on Ray, against processes of the same machine: time and memory per task.

    python -m training run engine_cost --record

Expected: at most 0.2 s a task and 5 % over processes on the same cores, and memory of the driver that does not depend
on the number of tasks.
Found: ``training/results/engine_cost.csv`` and ``engine_cost_tasks.csv``, medians of three sweeps on an idle machine of
two cores. Processor time is within the target, and time per task far below it. With two and three nodes there are fewer
trainings per hour than the target, because Ray and the driver need some of the same two cores.
``engine_cost_10000.csv`` is calculated.
"""

from training.engine.stage import Stage
from training.experiments.engine_costs import EngineCost
from training.recipes import Fields

FOLDER = "benchmarks"


def stages(smoke: bool = False) -> dict[str, Stage]:
    small: Fields = {"nodes": (1,), "trainings": 2, "steps": 2, "filters": (2, 2), "images": 100} if smoke else {}
    return {"engine_cost": EngineCost(**small | ({"tasks": (2,), "repeats": 1} if smoke else {}))}
