"""What a fit warns of: too few kernels, and a prior that describes kernels no better than white noise does."""

import math

from torch import Tensor

ENOUGH = 10  # kernels for each of the numbers of one


def warn_if_few(name: str, kernels: Tensor) -> None:
    """Prints a warning if there are few kernels ``(n, c, *size)`` for a covariance, from which every family starts."""
    count, dim = len(kernels), kernels[0].numel()
    if count < ENOUGH * dim:
        print(
            f"warning: {name!r} is fitted to {count:,} kernels of {dim:,} numbers; with fewer than {ENOUGH * dim:,} "
            "their covariance is poor, and log p of other kernels can be very low: give more kernels, or smaller ones"
        )


def warn_if_worse_than_noise(name: str, log_prob: float, noise: float) -> None:
    """Prints a warning if log p of test kernels, in nats per kernel, is below that under white noise of their scale."""
    if not log_prob >= noise:
        print(
            f"warning: log p of held-out kernels is {log_prob:,} nats under {name!r}, and {noise:,} under white noise "
            "of their scale: the prior does not describe them; give more kernels, fit longer, or take another --family"
        )


def white_noise_log_prob(train: Tensor, test: Tensor) -> float:
    """Returns the mean log p of kernels under N(0, s² I), where s is the root mean square of ``train``, in nats."""
    square = train.double().square().mean().item()
    squares = test.double().flatten(1).square().sum(1).mean().item()
    return round(-0.5 * (squares / square + test[0].numel() * math.log(2 * math.pi * square)), 3)
