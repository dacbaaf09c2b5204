"""What mypy and pyright know of the public names; they check this file, and nothing runs it."""

from pathlib import Path

import torch
from torch import nn
from typing_extensions import assert_type

import dwp_init


def apply(model: nn.Module, prior: dwp_init.Prior, generator: torch.Generator) -> None:
    report = assert_type(dwp_init.apply_(model, "natural", seed=0, dry_run=True), dwp_init.Report)
    assert_type(report.initialized, list[str])
    assert_type((len(report), report.coverage.layers, report.coverage.weight_share), tuple[int, int, float])
    assert_type(report.skipped, dict[str, str])
    assert_type([row.rms_after for row in report.drawn], list[float | None])
    dwp_init.apply_(model, [prior, Path("folder"), dwp_init.SETS["natural"]], generator=generator, dry_run=True)
    dwp_init.apply_(model, {"stem.*": prior, "*": ["notmnist-7x7", prior]}, layers=lambda name, module: True)
    dwp_init.apply_(model, prior, layers=["stem.*", "head"], scale="prior", noise=False, orthogonal=True)
    dwp_init.apply_(model, prior, scale="he")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    dwp_init.apply_(model, prior, layer="stem")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def draw(layer: nn.Conv2d, weight: torch.Tensor, generator: torch.Generator) -> None:
    assert_type(dwp_init.init.kernels_(weight, "natural", depth=0.5, groups=2, generator=generator), torch.Tensor)
    assert_type(dwp_init.init.kernels_(nn.Parameter(weight), "natural", dilation=layer.dilation, gain=1), nn.Parameter)


def load(folder: Path) -> None:
    prior = assert_type(dwp_init.load_prior("notmnist-7x7"), dwp_init.Prior)
    assert_type(prior.sample(4), torch.Tensor)
    assert_type(prior.log_prob(prior.sample(4)), torch.Tensor)
    dwp_init.save_prior(prior, folder)
    assert_type(dwp_init.list_priors(), list[str])
    dwp_init.PriorSet(dense=(prior, "notmnist-7x7"), orthogonal=True)
