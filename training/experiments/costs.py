"""What things cost: drawing a network's kernels, training source networks, and a step of variational inference."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import dwp_init
from dwp_init import Prior, bayes
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.experiments.measure import extra_memory, in_fresh_process, ratios, seconds
from training.fits.base import fitted_prior
from training.networks.loop import descend
from training.networks.paper import CIFARNet, MNISTNet
from training.starts.priors import bundled_digests

PAIRS = tuple((f"notmnist-7x7{suffix}", f"notmnist-5x5{suffix}") for suffix in ("", "-vae", "-h1"))


def pair_digests() -> dict[str, Any]:
    """Returns the digests of the priors of ``PAIRS``."""
    return bundled_digests(*(name for pair in PAIRS for name in pair))


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
        return pair_digests()

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        rows = [in_fresh_process(_measure_apply, pair, self.repeats, self.filters) for pair in PAIRS]
        write_table(folder / "record" / "apply_cost.csv", rows)
        return {"rows": rows}


def _measure_apply(pair: tuple[str, str], repeats: int, filters: tuple[int, int, int]) -> Row:
    model = CIFARNet(filters)
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]

    def kaiming() -> None:
        for weight in weights:
            nn.init.kaiming_normal_(weight)

    def apply() -> None:
        dwp_init.apply_(model, list(pair))

    kaiming()
    memory = extra_memory(apply)
    return {
        "priors": " + ".join(pair),
        "kernels": sum(weight.shape[0] * weight.shape[1] for weight in weights),
        **ratios(apply, kaiming, repeats, ("ratio_median", "ratio_min", "ratio_max")),
        "extra_memory_mb": round(memory / 1e6, 1),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Decoding(Stage):
    """Times drawing kernels from each of several fits, and ``kaiming_normal_`` and matrix products for comparison.

    The three are measured in turn, ``repeats`` times; the table has medians, and shares of the best matrix product.

    Args:
        needs: The fits.
        kernels: Number of kernels drawn; 98,304 are those of the two 5×5 layers of the paper's CIFAR network.
        repeats: Number of rounds.
        size: Size of the square float32 matrices whose product is the peak.
    """

    kernels: int = 98_304
    repeats: int = 7
    size: int = 2048

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(kernels=self.kernels, repeats=self.repeats, size=self.size)
        fits = [fitted_prior(context.out / need) for need in self.needs]
        priors = {prior.details["name"]: prior for prior in fits}
        weight = torch.empty(self.kernels, *next(iter(priors.values())).kernel_shape)
        left, right = torch.rand(2, self.size, self.size).unbind()
        times: dict[str, list[float]] = {name: [] for name in ("kaiming", "product", *priors)}
        for _ in tqdm(range(self.repeats), desc="decoding", unit="round"):
            times["kaiming"].append(seconds(lambda: nn.init.kaiming_normal_(weight)))
            times["product"].append(seconds(lambda: left @ right))
            for name, prior in priors.items():
                times[name].append(seconds(partial(prior.sample, self.kernels)))
                times["product"].append(seconds(lambda: left @ right))
        peak = 2 * self.size**3 / min(times["product"])
        kaiming = statistics.median(times["kaiming"])
        rows = [self._row(name, prior, times[name], kaiming, peak) for name, prior in priors.items()]
        write_table(folder / "record" / "decoding.csv", rows)
        print_table(rows)
        return {"rows": rows}

    def _row(self, name: str, prior: Prior, times: list[float], kaiming: float, peak: float) -> Row:
        median, flops = statistics.median(times), decoding_flops(prior, self.kernels)
        return {
            "prior": name,
            "family": prior.family,
            "kernels": self.kernels,
            "seconds": round(median, 4),
            "seconds_min": round(min(times), 4),
            "seconds_max": round(max(times), 4),
            "over_kaiming": round(median / kaiming, 2),
            "gflop": round(flops / 1e9, 3),
            "share_of_peak": round(flops / median / peak, 4),
            "best_share_of_peak": round(flops / min(times) / peak, 4),
            "peak_gflop_per_second": round(peak / 1e9, 1),
            "threads": torch.get_num_threads(),
        }


def decoding_flops(prior: Prior, kernels: int) -> int:
    """Returns the floating-point operations of the matrix products and convolutions that draw kernels."""
    count = min(kernels, 4 * prior.chunk)
    with FlopCounterMode(display=False) as counter:
        prior.sample(count)
    return int(counter.get_total_flops()) * kernels // count


@dataclass(frozen=True)
class SourceThroughput(Stage):
    """Times a training step of several source networks: one after the other, and as one ``torch.func`` ensemble.

    Args:
        networks: Number of networks.
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
            one_by_one, ensemble = self._one_by_one(images, labels), self._ensemble(images, labels)
            one_by_one()
            ensemble()
            found = ratios(ensemble, one_by_one, self.repeats, ("ensemble_over_one_by_one_median", "min", "max"))
        finally:
            torch.set_num_threads(threads)
        row = {
            "networks": self.networks,
            "filters": "/".join(map(str, self.filters)),
            "batch_size": self.batch_size,
            **found,
        }
        print(f"  {row}")
        write_table(folder / "record" / "source_throughput.csv", [row])
        return row

    def _one_by_one(self, images: Tensor, labels: Tensor) -> Callable[[], None]:
        networks = [MNISTNet(self.filters).to(memory_format=torch.channels_last) for _ in range(self.networks)]
        optimizers = [torch.optim.Adam(network.parameters(), fused=True) for network in networks]

        def step() -> None:
            for network, optimizer, x, y in zip(networks, optimizers, images, labels, strict=True):
                with torch.autocast("cpu", torch.bfloat16):
                    logits = network(x.contiguous(memory_format=torch.channels_last))
                descend(F.cross_entropy(logits.float(), y), optimizer)

        return step

    def _ensemble(self, images: Tensor, labels: Tensor) -> Callable[[], None]:
        networks = [MNISTNet(self.filters) for _ in range(self.networks)]
        stacked, _ = stack_module_state(networks)
        optimizer = torch.optim.Adam(stacked.values(), fused=True)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                logits = vmap(lambda weights, x: functional_call(networks[0], weights, (x,)))(stacked, images)
            descend(F.cross_entropy(logits.float().flatten(0, 1), labels.flatten()) * self.networks, optimizer)

        return step


@dataclass(frozen=True)
class InferenceStep(Stage):
    """Times a step with a learned prior against one with the standard normal prior, alternating, in a process a row.

    Args:
        name: Base name of the CSV file.
        pairs: Bundled priors, one for each kernel size; a row for each pair.
        draws: Each K of the semi-implicit bound, for pairs of VAEs; 0 for Algorithm 1's bound and other priors.
        batch_size: Images per step.
        filters: Channels of the MNIST network; a row for each prior and each number of kernels.
        kernels: Kernels of a layer on which a step evaluates the divergence; 0 for all.
        repeats: Pairs of timings; medians are reported.
    """

    name: str = "inference_step"
    pairs: tuple[tuple[str, str], ...] = PAIRS
    draws: tuple[int, ...] = (0,)
    batch_size: int = 50
    filters: tuple[int, int] = (32, 128)
    kernels: tuple[int, ...] = (0, 512)
    repeats: int = 15

    def other_inputs(self) -> dict[str, Any]:
        return pair_digests()

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(batch_size=self.batch_size, repeats=self.repeats)
        each = product(self.pairs, self.draws, self.kernels)
        rows = [in_fresh_process(_measure_step, self, *settings) for settings in each]
        write_table(folder / "record" / f"{self.name}.csv", rows)
        return {"rows": rows}


def _measure_step(stage: InferenceStep, pair: tuple[str, str], draws: int, kernels: int) -> Row:
    torch.manual_seed(0)
    learned: list[bayes.KL] = [bayes.kl_from(dwp_init.load_prior(name), draws=draws or None) for name in pair]
    normal, dwp = _trainer(stage, [bayes.NormalKL()], kernels), _trainer(stage, learned, kernels)
    normal.run(4)
    memory = extra_memory(lambda: dwp.run(2))
    columns = ("over_standard_normal_median", "min", "max")
    return {
        "priors": " + ".join(pair),
        "draws": draws or "",
        "filters": "/".join(map(str, stage.filters)),
        "batch_size": stage.batch_size,
        "kernels_per_layer": kernels or "all",
        **ratios(lambda: dwp.run(1), lambda: normal.run(1), stage.repeats, columns),
        "extra_memory_mb": round(memory / 1e6, 1),
        "threads": torch.get_num_threads(),
    }


def _trainer(stage: InferenceStep, terms: list[bayes.KL], kernels: int) -> bayes.Trainer:
    network = MNISTNet(stage.filters)
    bayes.bayesianize_(network, estimator="local")
    images, labels = torch.rand(1, stage.batch_size, 1, 28, 28), torch.randint(10, (1, stage.batch_size))
    objective = bayes.Objective(network, terms, kernels or None)
    return bayes.Trainer([objective], images, labels, bayes.Schedule(batch_size=stage.batch_size))
