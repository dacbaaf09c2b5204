"""Kernels of several channels: is a colour stem better described jointly, or channel by channel as in Eq. 5?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwp_init import Prior
from training.engine.records import Row, print_table, read_done, write_table
from training.engine.stage import Context, Stage
from training.figures.kernels import plot_colour_kernels
from training.fits.base import fitted_prior
from training.fits.score import MOST, clustered_error, score
from training.images.split import thin
from training.kernels.kernelset import KernelSet


@dataclass(frozen=True)
class JointDensity(Stage):
    """Compares priors over ``(c, *size)`` kernels with ones over single channels, on the same held-out kernels.

    Drawn channel by channel, a kernel has log p(w) = Σ log p(w_c). Records ``<name>.csv`` and ``<name>.png``.

    Args:
        needs: The joint kernels, then pairs of fits of one family, the joint one first.
        name: Base name of the CSV and PNG files.
    """

    name: str = "joint_stem"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        test, network = thin(kernels.test, MOST), thin(kernels.test_network, MOST)
        table: list[Row] = [{"prior": "(the kernels)", "channel_correlation": channel_correlation(test)}]
        draws = {"stems of held-out networks": test}
        for joint, single in zip(self.needs[1::2], self.needs[2::2], strict=True):
            family = read_done(context.out / joint)["family"]
            priors = [fitted_prior(context.out / need) for need in (joint, single)]
            together, apart = score(priors[0], test)[0], channelwise_log_prob(priors[1], test)
            names = (f"{family}, jointly", f"{family}, by channel")
            for name, prior, values in zip(names, priors, (together, apart), strict=True):
                draws[name] = draw_stems(prior, 2000, test.shape[1])
                row: Row = {"prior": name, "channel_correlation": channel_correlation(draws[name])}
                over = values - apart if name == names[0] else torch.empty(0)
                table.append(row | {"log_prob": round(values.mean().item(), 3)} | _lead(over, network))
                table[-1]["kernels"] = len(values)
        table[0] |= {key: "" for key in table[1] if key not in table[0]}
        write_table(folder / "record" / f"{self.name}.csv", table)
        plot_colour_kernels(draws, folder / "record" / f"{self.name}.png")
        print_table(table)
        return {"density": table}


def _lead(over: Tensor, network: Tensor) -> Row:
    """Summarises how far kernels' log p is over that by channel; empty where there is nothing to compare."""
    if not len(over):
        return dict.fromkeys(("over_by_channel", "over_by_channel_error", "over_by_channel_median"), "")
    return {
        "over_by_channel": round(over.mean().item(), 3),
        "over_by_channel_error": round(clustered_error(over, network), 3),
        "over_by_channel_median": round(over.median().item(), 3),
    }


@torch.no_grad()
def channelwise_log_prob(prior: Prior, kernels: Tensor) -> Tensor:
    """Maps kernels ``(n, c, *size)`` to Σ log p(w_c) ``(n,)`` under a prior over single channels, in nats."""
    return prior.log_prob(kernels.flatten(0, 1)[:, None]).view(len(kernels), -1).sum(1)


def draw_stems(prior: Prior, n: int, channels: int) -> Tensor:
    """Draws ``n`` kernels of ``channels`` channels, together or, from a prior over single ones, one by one."""
    count = n * channels // prior.kernel_shape[0]
    return prior.sample(count, torch.Generator().manual_seed(0)).view(n, channels, *prior.kernel_shape[1:])


def channel_correlation(kernels: Tensor) -> float:
    """Returns the mean correlation between two channels of kernels ``(n, c, *size)``, 1 if all are grey."""
    channels = kernels.transpose(0, 1).flatten(1)
    pairs = torch.corrcoef(channels)[torch.triu_indices(len(channels), len(channels), 1).unbind()]
    return round(pairs.mean().item(), 4)
