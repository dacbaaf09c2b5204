"""What things cost: drawing a network's kernels, and training source networks one by one or as an ensemble."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import dwp_init
from training.evaluate import bundled_digests, write_table
from training.networks import CIFARNet, MNISTNet
from training.stages import Context, Stage

PAIRS = (("notmnist-7x7", "notmnist-5x5"), ("notmnist-7x7-h1", "notmnist-5x5-h1"))


@dataclass(frozen=True)
class ApplyCost(Stage):
    """Times ``apply_`` against ``kaiming_normal_`` on the same weights in the same process, alternating.

    Args:
        repeats: Pairs of timings; medians are reported.
        filters: Channels of the paper's CIFAR network; (128, 256, 256) has 384 7×7 and 98,304 5×5 kernels.
    """

    repeats: int = 15
    filters: tuple[int, int, int] = (128, 256, 256)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*(name for pair in PAIRS for name in pair))

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        rows = []
        for pair in PAIRS:
            with torch.multiprocessing.get_context("spawn").Pool(1) as fresh:
                rows.append(fresh.apply(_measure_apply, (pair, self.repeats, self.filters)))
            print(f"  {rows[-1]}")
        write_table(folder / "record" / "apply_cost.csv", rows)
        return {"rows": rows}


def _measure_apply(pair: tuple[str, str], repeats: int, filters: tuple[int, int, int]) -> dict[str, Any]:
    model = CIFARNet(filters)
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]

    def kaiming() -> None:
        for weight in weights:
            nn.init.kaiming_normal_(weight)

    def apply() -> None:
        dwp_init.apply_(model, list(pair))

    kaiming()
    memory = _extra_memory(apply)
    ratios, kaiming_times = [], []
    for _ in range(repeats):
        kaiming_times.append(_seconds(kaiming))
        ratios.append(_seconds(apply) / kaiming_times[-1])
    ratios = torch.tensor(ratios)
    return {
        "priors": " + ".join(pair),
        "kernels": sum(weight.shape[0] * weight.shape[1] for weight in weights),
        "ratio_median": round(ratios.median().item(), 2),
        "ratio_min": round(ratios.min().item(), 2),
        "ratio_max": round(ratios.max().item(), 2),
        "extra_memory_mb": round(memory / 1e6, 1),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class SourceThroughput(Stage):
    """Times a training step of several source networks: one after the other, and as one ``torch.func`` ensemble.

    Args:
        networks: How many.
        filters: Channels of the two convolutions.
        batch_size: Images per network and step.
        repeats: Pairs of timings; medians are reported.
    """

    networks: int = 8
    filters: tuple[int, int] = (32, 64)
    batch_size: int = 16
    repeats: int = 15

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        images = torch.rand(self.networks, self.batch_size, 1, 28, 28)
        labels = torch.randint(10, (self.networks, self.batch_size))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            steps = {"one by one": self._one_by_one(images, labels), "ensemble": self._ensemble(images, labels)}
            for step in steps.values():
                step()
            times = [{name: _seconds(step) for name, step in steps.items()} for _ in range(self.repeats)]
        finally:
            torch.set_num_threads(threads)
        ratios = torch.tensor([time["ensemble"] / time["one by one"] for time in times])
        row = {
            "networks": self.networks,
            "filters": "/".join(map(str, self.filters)),
            "batch_size": self.batch_size,
            "ensemble_over_one_by_one_median": round(ratios.median().item(), 2),
            "min": round(ratios.min().item(), 2),
            "max": round(ratios.max().item(), 2),
        }
        print(f"  {row}")
        write_table(folder / "record" / "source_throughput.csv", [row])
        return row

    def _one_by_one(self, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
        networks = [MNISTNet(self.filters).to(memory_format=torch.channels_last) for _ in range(self.networks)]
        optimizers = [torch.optim.Adam(network.parameters(), fused=True) for network in networks]

        def step() -> None:
            for network, optimizer, x, y in zip(networks, optimizers, images, labels, strict=True):
                with torch.autocast("cpu", torch.bfloat16):
                    logits = network(x.contiguous(memory_format=torch.channels_last))
                optimizer.zero_grad()
                F.cross_entropy(logits.float(), y).backward()
                optimizer.step()

        return step

    def _ensemble(self, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
        networks = [MNISTNet(self.filters) for _ in range(self.networks)]
        stacked, _ = stack_module_state(networks)
        optimizer = torch.optim.Adam(stacked.values(), fused=True)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                logits = vmap(lambda weights, x: functional_call(networks[0], weights, (x,)))(stacked, images)
            optimizer.zero_grad()
            (F.cross_entropy(logits.float().flatten(0, 1), labels.flatten()) * self.networks).backward()
            optimizer.step()

        return step


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _extra_memory(function: Callable[[], None]) -> int:
    """Returns by how many bytes the process's resident memory grows at its peak during a call; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM, to what is resident now
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
