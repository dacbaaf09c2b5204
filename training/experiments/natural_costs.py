"""What ``apply_`` with ``natural`` costs on public networks, on layers of growing size, and in its first call."""

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

import dwp_init
from dwp_init.sets import SETS
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.experiments.measure import extra_memory, in_fresh_process
from training.figures.style import save_figure
from training.starts.priors import bundled_digests

_FIRST = """
import json, sys, time, torch
torch.set_num_threads(1)
model = torch.nn.Conv2d(64, 64, 3)
torch.nn.init.kaiming_normal_(model.weight)
def cpu_seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start
loaded = len(sys.modules)
imported = cpu_seconds(lambda: __import__("dwp_init"))
calls = [cpu_seconds(lambda: sys.modules["dwp_init"].apply_(model, "natural")) for _ in range(21)]
print(json.dumps([imported, calls, len(sys.modules) - loaded]))
"""


@dataclass(frozen=True)
class NaturalCosts(Stage):
    """Times ``apply_(model, "natural", scale="keep")`` against ``kaiming_normal_`` on the weights that it draws.

    At that scale the set draws dense layers too. The two take turns in one process, on one
    thread, and CPU time counts. Each row has a process of its own for its times, and another one for the memory of its
    first call.

    Args:
        models: Networks of torchvision, or ``timm:NAME``, with the random weights of their authors.
        channels: Numbers c of channels of single 3×3 layers with c inputs and c outputs.
        repeats: Pairs of timings; medians are reported.
        starts: Number of processes in which a first call is timed.
    """

    models: tuple[str, ...] = ("resnet50", "wide_resnet101_2", "convnext_base", "vgg16", "timm:vgg11")
    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    repeats: int = 9
    starts: int = 5

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*(str(prior) for _, prior in SETS["natural"]))

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(repeats=self.repeats, starts=self.starts)
        names = [*self.models, *map(str, self.channels)]
        rows = [in_fresh_process(_times, name, self.repeats) | in_fresh_process(_memory, name) for name in names]
        models, layers = rows[: len(self.models)], rows[len(self.models) :]
        first = first_call(self.starts)
        write_table(folder / "record" / "apply_cost_natural.csv", rows)
        write_table(folder / "record" / "apply_cost_first_call.csv", [first])
        plot_costs(models, layers, folder / "record" / "apply_cost_natural.png")
        print_table(rows)
        return {"rows": rows, "first_call": first}


def cpu_seconds(function: Callable[[], object]) -> float:
    """Returns the seconds of CPU time that a call takes, over all threads of the process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def first_call(starts: int) -> Row:
    """Measures importing the package, the first call of ``apply_`` and later ones, in fresh processes.

    Returns:
        CPU times in milliseconds: medians over the processes, the later calls' over 20 in each.
    """
    found: list[tuple[float, list[float], int]] = []
    for _ in range(starts):
        done = subprocess.run([sys.executable, "-c", _FIRST], check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout))
    imported, calls, modules = zip(*found, strict=True)
    later = [statistics.median(each[1:]) for each in calls]
    more = [each[0] - median for each, median in zip(calls, later, strict=True)]
    milliseconds = {"import_ms": imported, "first_call_ms": [each[0] for each in calls], "later_call_ms": later}
    row: Row = {name: _milli(values) for name, values in milliseconds.items()}
    return row | {"first_call_more_ms": _milli(more), "modules": max(modules), "processes": starts}


def _milli(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 1)


def _build(name: str) -> nn.Module:
    if name.isdecimal():
        return nn.Conv2d(int(name), int(name), 3)
    model: nn.Module
    if name.startswith("timm:"):
        import timm

        model = timm.create_model(name.removeprefix("timm:"))
    else:
        import torchvision

        model = torchvision.models.get_model(name)
    return model


def _times(name: str, repeats: int) -> Row:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = _build(name)
    report = dwp_init.apply_(model, "natural", scale="keep", dry_run=True)
    weights = [model.get_submodule(row.layer).get_parameter("weight") for row in report.drawn]

    def kaiming() -> None:
        for weight in weights:
            nn.init.kaiming_normal_(weight)

    def natural() -> None:
        dwp_init.apply_(model, "natural", scale="keep")

    kaiming()
    natural()
    pairs = [(cpu_seconds(kaiming), cpu_seconds(natural)) for _ in range(repeats)]
    ratios = [ours / theirs for theirs, ours in pairs]
    count = sum(weight.numel() for weight in weights)
    return {
        "network": f"3x3, {name} channels" if name.isdecimal() else name,
        "layers": len(weights),
        "weights": count,
        "kaiming_ns_per_weight": round(statistics.median(theirs for theirs, _ in pairs) / count * 1e9, 2),
        "natural_ns_per_weight": round(statistics.median(ours for _, ours in pairs) / count * 1e9, 2),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


def _memory(name: str) -> Row:
    torch.set_num_threads(1)
    model = _build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0)  # so that all of it is resident
    reports: list[dwp_init.Report] = []
    memory = extra_memory(lambda: reports.append(dwp_init.apply_(model, "natural", scale="keep")))
    largest = 4 * max(row.weights for row in reports[0].drawn)
    megabytes = {"largest_layer_mb": largest, "limit_mb": 3 * largest + 100e6, "extra_memory_mb": memory}
    return {key: round(value / 1e6, 1) for key, value in megabytes.items()}


def plot_costs(models: Sequence[Row], layers: Sequence[Row], path: Path) -> None:
    """Plots the CPU time per weight and its ratio to ``kaiming_normal_``'s against the number of weights."""
    figure = Figure(figsize=(9, 3.4))
    times, ratios = figure.subplots(1, 2)
    weights = [row["weights"] for row in layers]
    for key, label, colour in (("kaiming", "kaiming_normal_", "tab:gray"), ("natural", "natural", "tab:blue")):
        times.plot(weights, [row[f"{key}_ns_per_weight"] for row in layers], "o-", label=label, color=colour)
    ratios.plot(weights, [row["ratio_median"] for row in layers], "o-", color="tab:blue", label="one dense 3×3 layer")
    for row, marker in zip(models, itertools.cycle("D^sv*P"), strict=False):
        ratios.plot(row["weights"], row["ratio_median"], marker, label=row["network"], linestyle="none")
    times.set(ylabel="CPU time in ns per weight", yscale="log")
    ratios.set(ylabel="CPU time over kaiming_normal_'s", yscale="log", yticks=(5, 8, 10, 20, 50))
    ratios.yaxis.set_major_formatter("{x:g}")
    ratios.yaxis.set_minor_formatter("")
    for axes in (times, ratios):
        axes.set(xlabel="weights drawn", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)
