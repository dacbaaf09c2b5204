"""How a bound is maximised: learning rates, the weight of the divergences, and one step of Adam."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from dwp_init.priors.checks import check_count, check_positive
from dwp_init.tensors import as_list
from dwp_init.text import few


@dataclass(frozen=True)
class Schedule:
    """How a bound is maximised: by Adam, with learning rates that fall linearly to 0 at every step.

    Args:
        steps: Number of steps.
        batch_size: Images per step, each time drawn without replacement from all; all images if there are fewer.
        lr: Initial learning rate.
        scale_lr: Initial learning rate of the posterior's log variances; ``lr`` by default.
        warm_up: Steps over which the weight of the divergences grows linearly from 0 to ``temperature``.
        temperature: Weight of the divergences; 1 is Bayes' rule, and lower values give a colder posterior.
    """

    steps: int = 10_000
    batch_size: int = 50
    lr: float = 1e-3
    scale_lr: float | None = None
    warm_up: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_count(steps=self.steps, batch_size=self.batch_size)
        check_positive(lr=self.lr, temperature=self.temperature, scale_lr=self.log_variance_lr)
        if type(self.warm_up) is not int or not 0 <= self.warm_up <= self.steps:
            raise ValueError(f"warm_up must be from 0 to the {self.steps} steps; got {self.warm_up!r}")

    @property
    def log_variance_lr(self) -> float:
        """Initial learning rate of the posterior's log variances."""
        return self.lr if self.scale_lr is None else self.scale_lr

    def kl_weight(self, step: int) -> float:
        """Returns the weight of the divergences in a step, counted from 0."""
        return self.temperature * min(1.0, (step + 1) / (self.warm_up + 1))


class Descent:
    """Steps of Adam down a negative bound, under a schedule.

    Args:
        schedule: The schedule.
        parameters: What is trained, by name.
        scales: Names of the posterior's log variances among them, which have a rate of their own.

    Attributes:
        optimizer: Adam.

    Raises:
        ValueError: Log variances are in half precision.
    """

    def __init__(self, schedule: Schedule, parameters: Mapping[str, Tensor], scales: Collection[str]) -> None:
        for name, value in parameters.items():
            if name in scales and value.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"{name} is {value.dtype}, in which steps of Adam are rounded away: train in float32, "
                    "under torch.autocast for speed"
                )
        log_variances = [value for name, value in parameters.items() if name in scales]
        rest = [value for name, value in parameters.items() if name not in scales]
        groups = [(rest, schedule.lr), (log_variances, schedule.log_variance_lr)]
        used: list[dict[str, Any]] = [{"params": values, "lr": rate} for values, rate in groups if values]
        self.schedule, self._parameters = schedule, parameters
        self.optimizer = torch.optim.Adam(used, lr=schedule.lr)
        self._rates = [rate for values, rate in groups if values]

    def take_step(self, step: int, nll: Tensor, kl: Tensor) -> None:
        """Takes a step, counted from 0, down the sum of both parts, the divergences with their weight."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * (1 - step / self.schedule.steps)
        loss = nll.sum() + self.schedule.kl_weight(step) * kl.sum()
        self.optimizer.zero_grad()
        cast(Any, loss).backward()
        cast(Any, self.optimizer).step()

    @torch.no_grad()
    def check_finite(self, steps: int, nll: Tensor, kl: Tensor, *, parameters: bool = True) -> None:
        """Raises ``ValueError`` if a part of the bound or a parameter is infinite or NaN.

        Args:
            steps: Number of steps taken.
            nll: ``()`` for one network, or ``(networks,)`` for several, of which each parameter has that first axis.
            kl: ``(..., layers)``.
            parameters: Whether the parameters are looked at too.
        """
        looked_at: Mapping[str, Tensor] = self._parameters if parameters else {}
        each = {name: value.isfinite().reshape(*nll.shape, -1).all(-1) for name, value in looked_at.items()}
        finite = nll.isfinite() & kl.isfinite().all(-1)
        for found in each.values():
            finite = finite & found
        if finite.all():
            return
        who = f"network {(~finite).nonzero()[0].item()}" if nll.dim() else "the network"
        broken = [name for name, found in each.items() if not found.all()]
        raise ValueError(
            f"{who} diverged by step {steps}: nll {as_list(nll)}, KL {as_list(kl)}, NaN or infinite in "
            f"{few(broken) or 'no parameter'}; lower lr={self.schedule.lr}, or start nearer to the prior"
        )
