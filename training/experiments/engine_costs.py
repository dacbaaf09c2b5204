"""What it costs to run trainings on Ray: time and memory for each task, against processes of the same machine."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.engine.options import check_counts
from training.engine.ray import LOOPBACK, Ray
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Engine, Processes, Progress
from training.experiments.measure import extra_memory
from training.kernels.sources import Sources
from training.networks.loop import Step
from training.networks.registry import build

NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 200 * 2**20}
_Job = Callable[[tuple[int], Progress], list[Row]]


@dataclass(frozen=True)
class EngineCost(Stage):
    """Trains the same networks on nodes of one CPU each and in as many processes, in turn; and runs empty tasks.

    All nodes are on this machine, so that more of them than cores share these. Times are between the start of the first
    training and the end of the last. Records ``engine_cost.csv``; ``engine_cost_tasks.csv``, with the memory that the
    driver needs besides; and ``engine_cost_10000.csv``, what 10,000 source networks of the paper's size would need.

    Args:
        nodes: Numbers of nodes, rising.
        trainings: Networks in a sweep.
        steps: Steps of a training.
        filters: Channels of the networks.
        images: Images that all share.
        tasks: Numbers of tasks that do nothing but hold the images.
        repeats: Sweeps on each engine; medians are recorded.
    """

    nodes: tuple[int, ...] = (1, 2, 3)
    trainings: int = 6
    steps: int = 400
    filters: tuple[int, int] = (16, 32)
    images: int = 20_000
    tasks: tuple[int, ...] = (10, 100, 1_000)
    repeats: int = 3

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(trainings=self.trainings, steps=self.steps, images=self.images, repeats=self.repeats)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.images, 1, 28, 28, generator=generator)
        train = partial(_train, self.filters, self.steps, images, torch.arange(self.images) % 10)
        rows: list[Row] = []
        with _one_thread(), _cluster() as cluster:
            for nodes in self.nodes:
                while len(cluster.worker_nodes) < nodes:
                    cluster.add_node(num_cpus=1, **NODE)
                engines: dict[str, Engine] = {"workers": Processes(nodes), "ray": Ray(folder, cluster.address)}
                if not rows:
                    tasks = _tasks_table(engines["ray"], folder, images, self.tasks)
                rows += self._compare(engines, folder, train, nodes)
        write_table(folder / "record" / "engine_cost.csv", rows)
        write_table(folder / "record" / "engine_cost_tasks.csv", tasks)
        write_table(folder / "record" / "engine_cost_10000.csv", [_at_scale(10_000, tasks[-1])])
        print_table(rows)
        print_table(tasks)
        return {"trainings": rows, "tasks": tasks}

    def _compare(self, engines: dict[str, Engine], folder: Path, train: _Job, nodes: int) -> list[Row]:
        """Returns a row for each engine; they take turns."""
        sweeps: dict[str, list[list[Row]]] = {name: [] for name in engines}
        for repeat in range(self.repeats):
            for name, engine in engines.items():
                sweeps[name].append(_sweep(engine, folder, train, self.trainings, f"{name} {nodes} {repeat}"))
        rows = [{"nodes": nodes, "engine": name, **_medians(found)} for name, found in sweeps.items()]
        for row in rows:
            for column in ("trainings_per_hour", "cpu_seconds_per_training"):
                row[f"{column}_over_workers"] = round(row[column] / rows[0][column], 3)
        return rows


def _sweep(engine: Engine, folder: Path, job: _Job, count: int, desc: str) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        Sweep(Path(scratch), ("run",), total=count, engine=engine, desc=desc) as sweep,
    ):
        return sweep(job, [(run,) for run in range(count)])


def _train(
    filters: tuple[int, int], steps: int, images: Tensor, labels: Tensor, run: tuple[int], progress: Progress
) -> list[Row]:
    began, cpu = time.time(), time.process_time()
    torch.manual_seed(run[0])
    network = build("mnist", filters, 10, (1, 28, 28))
    optimizer = torch.optim.Adam(network.parameters())
    step = Step(network, optimizer, lambda batch: (images[batch], labels[batch]), torch.device("cpu"))
    for batch in torch.randint(len(images), (steps, 64)):
        step(batch, 1e-3)
    progress(1)
    used = time.process_time() - cpu
    return [{"run": run[0], "process": os.getpid(), "began": began, "ended": time.time(), "cpu_seconds": used}]


def _do_nothing(images: Tensor, run: tuple[int], progress: Progress) -> list[Row]:
    progress(1)
    return [{"run": run[0], "images": len(images)}]


def _medians(sweeps: Sequence[Sequence[Row]]) -> Row:
    rows = [row for sweep in sweeps for row in sweep]
    spans = [max(row["ended"] for row in sweep) - min(row["began"] for row in sweep) for sweep in sweeps]
    gaps = [gap for sweep in sweeps for gap in _gaps(sweep)]
    return {
        "trainings": len(rows),
        "trainings_per_hour": round(3600 * len(sweeps[0]) / statistics.median(spans)),
        "cpu_seconds_per_training": round(statistics.median(row["cpu_seconds"] for row in rows), 3),
        "seconds_between_trainings": round(statistics.median(gaps), 3) if gaps else "",
    }


def _gaps(sweep: Sequence[Row]) -> Iterator[float]:
    """Yields the seconds between the end of a training and the start of the next one in the same process."""
    for process in {row["process"] for row in sweep}:
        own = sorted((row for row in sweep if row["process"] == process), key=lambda row: float(row["began"]))
        yield from (after["began"] - before["ended"] for before, after in pairwise(own))


def _tasks_table(engine: Engine, folder: Path, images: Tensor, counts: Sequence[int]) -> list[Row]:
    job = partial(_do_nothing, images)
    _sweep(engine, folder, job, counts[0], "starting processes")
    rows: list[Row] = []
    for count in counts:
        run = partial(_sweep, engine, folder, job, count, f"{count} tasks")
        began = time.perf_counter()
        memory = extra_memory(run)
        took = time.perf_counter() - began
        rows.append(
            {
                "tasks": count,
                "seconds_per_task": round(took / count, 4),
                "driver_extra_mb": round(memory / 1e6, 1),
                "images_mb": round(images.nbytes / 1e6, 1),
            }
        )
    return rows


def _at_scale(networks: int, tasks: Row) -> Row:
    """Returns what source networks of the paper's size would write and cost besides their training, from ``tasks``."""
    stage = Sources()
    weights = 4 * sum(p.numel() for p in build(stage.network, stage.filters, 10, (1, 28, 28)).parameters())
    return {
        "networks": networks,
        "weights_gb": round(networks * weights / 1e9, 1),
        "checkpoint_mb": round(3 * weights / 1e6, 1),  # with the two moments of Adam
        "checkpoints_written_tb": round(networks * (stage.epochs - 1) * 3 * weights / 1e12, 1),
        "task_overhead_minutes": round(networks * tasks["seconds_per_task"] / 60, 1),
        "driver_extra_mb": round(tasks["driver_extra_mb"], 1),
        "reports_per_second_of_1000_cpus": 1_000,  # one a second from each training
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _cluster() -> Iterator[Any]:
    """Starts a cluster on the loopback interface, whose head has no CPU for trainings."""
    os.environ |= LOOPBACK
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE})
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
