"""What the families that are trained by gradient share."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dwp_init import Prior
from dwp_init.priors.base import KernelShape
from dwp_init.priors.whitening import AffineWhitening
from training.engine.options import check_counts
from training.engine.records import load_checkpoint, read_metrics, record_metrics, save_checkpoint, write_metrics
from training.fits.base import CHECKPOINT, Fit, either, has_form
from training.fits.score import score
from training.kernels.kernelset import KernelSet
from training.networks.loop import descend


@dataclass(frozen=True)
class FitByGradient(Fit):
    """Trains a prior by AdamW on its log p or a bound on it, averaged over the batch; the learning rate decays to 0.

    Every ``evaluate_every`` epochs log p of the validation kernels is estimated, and the best state is kept.

    Args:
        epochs: Passes over the kernels; 300 in the paper.
        batch_size: Kernels per step.
        lr: Initial learning rate, decaying linearly at every step.
        jitter: Standard deviation of the white noise added to whitened kernels as a regulariser.
        evaluate_every: Epochs between two evaluations on the validation kernels.
    """

    epochs: int = 300
    batch_size: int = 128
    lr: float = 1e-3
    jitter: float = 0.0
    evaluate_every: int = 5

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        if not has_form(settings, epochs=int, batch_size=int, lr=float):
            return ""
        return (
            f"{either([settings['epochs']], 'epoch')} (300 in the paper), batches of {settings['batch_size']:,}, AdamW "
            f"{settings['lr']:g}, linear decay{cls._objective(settings)}, the best on the validation kernels"
        )

    @classmethod
    def _objective(cls, settings: Mapping[str, Any]) -> str:
        """Says what is maximised, where that depends on a setting."""
        return ""

    def build(self, shape: KernelShape) -> Prior:
        """Returns the prior before training."""
        raise NotImplementedError

    def bound(self, prior: Any, kernels: Tensor) -> Tensor:
        """Maps kernels to what is maximised, ``(n,)``: log p(w), or a differentiable bound on it."""
        log_prob: Tensor = prior.log_prob(kernels)
        return log_prob

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        check_counts(epochs=self.epochs, batch_size=self.batch_size, evaluate_every=self.evaluate_every)
        prior = self.build(kernels.kernel_shape)
        whitening = _whitening(prior)
        if whitening and getattr(prior, "whiten", True):
            whitening.fit_(kernels.train.flatten(1))
        return self._train(prior.to(device), kernels.train.to(device), kernels.validation.to(device), folder)

    def _train(self, prior: Prior, train: Tensor, validation: Tensor, folder: Path) -> Prior:
        optimizer = torch.optim.AdamW(prior.parameters(), lr=self.lr, weight_decay=0)
        state: dict[str, Any] = {"epoch": 0, "best": -math.inf, "best_state": copy.deepcopy(prior.state_dict())}
        state["rows"] = []
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            prior.load_state_dict(state["prior"])
            optimizer.load_state_dict(state["optimizer"])
        write_metrics(folder, state.setdefault("rows", read_metrics(folder)))  # a kill may have left one more
        total, first = self.epochs * len(train), state["epoch"]
        with tqdm(total=total, initial=first * len(train), unit="kernel", unit_scale=True, desc=self.name) as bar:
            for epoch in range(first, self.epochs):
                bound = self._epoch(prior, optimizer, train, epoch)
                bar.update(len(train))
                if (epoch + 1) % self.evaluate_every and epoch + 1 < self.epochs:
                    continue
                found = score(prior, validation, samples=32, most=2000)[1]["log_prob"]
                state["rows"].append({"epoch": epoch + 1, "train_bound": round(bound, 3), "validation_log_prob": found})
                record_metrics(folder, **state["rows"][-1])
                bar.set_postfix(validation=f"{found:.2f} nats")
                if found > state["best"]:
                    state |= {"best": found, "best_state": copy.deepcopy(prior.state_dict())}
                state |= {"epoch": epoch + 1, "prior": prior.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(checkpoint, state)
        if state["best"] == -math.inf:
            raise ValueError(
                f"the fit of {self.name!r} diverged: no finite log p on held-out kernels; lower lr={self.lr}"
            )
        prior.load_state_dict(state["best_state"])
        return prior

    def _epoch(self, prior: Prior, optimizer: torch.optim.Optimizer, train: Tensor, epoch: int) -> float:
        """Makes one pass and returns the mean bound.

        Its randomness depends on seed and epoch alone, so that a resumed fit ends where an uninterrupted one would.
        """
        prior.train()
        torch.manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(train)).to(train.device)
        batches = torch.split(order, self.batch_size)[: max(len(train) // self.batch_size, 1)]
        total, bound_sum = self.epochs * len(batches), torch.zeros((), device=train.device)
        for step, batch in enumerate(batches, start=epoch * len(batches)):
            bound = self.bound(prior, self.jittered(prior, train[batch])).mean()
            bound_sum -= descend(-bound, optimizer, self.lr * (1 - step / total))
        return (bound_sum / len(batches)).item()

    def jittered(self, prior: Prior, kernels: Tensor) -> Tensor:
        """Adds the noise of ``jitter`` to kernels ``(n, c, *size)``."""
        if not self.jitter:
            return kernels
        noise = self.jitter * torch.randn(len(kernels), prior.dim, device=kernels.device)
        if whitening := _whitening(prior):
            noise = whitening.inverse(noise) - whitening.loc
        return kernels + noise.view_as(kernels)


def _whitening(prior: Prior) -> AffineWhitening | None:
    """Returns the transform of a prior that sees whitened kernels."""
    found = getattr(prior, "whitening", None)
    return found if isinstance(found, AffineWhitening) else None
