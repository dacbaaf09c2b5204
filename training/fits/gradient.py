"""What the families that are trained by gradient share."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dwp_init import Prior
from dwp_init.priors.base import KernelShape
from training.engine.options import check_counts
from training.engine.records import load_checkpoint, record_metrics, save_checkpoint
from training.fits.base import CHECKPOINT, Fit, has_form
from training.fits.score import score
from training.kernels.kernelset import KernelSet


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
            f"{settings['epochs']:,} epochs (300 in the paper), batches of {settings['batch_size']:,}, AdamW "
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
        return prior.log_prob(kernels)

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        check_counts(epochs=self.epochs, batch_size=self.batch_size, evaluate_every=self.evaluate_every)
        prior = self.build(kernels.kernel_shape)
        if getattr(prior, "whiten", True):
            prior.whitening.fit_(kernels.train.flatten(1))
        return self._train(prior.to(device), kernels.train.to(device), kernels.validation.to(device), folder)

    def _train(self, prior: Prior, train: Tensor, validation: Tensor, folder: Path) -> Prior:
        optimizer = torch.optim.AdamW(prior.parameters(), lr=self.lr, weight_decay=0)
        state = {"epoch": 0, "best": float("-inf"), "best_state": copy.deepcopy(prior.state_dict())}
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            prior.load_state_dict(state["prior"])
            optimizer.load_state_dict(state["optimizer"])
        size = {"total": self.epochs * len(train), "initial": state["epoch"] * len(train)}
        with tqdm(**size, unit="kernel", unit_scale=True, desc=self.name) as bar:
            for epoch in range(state["epoch"], self.epochs):
                bound = self._epoch(prior, optimizer, train, epoch)
                bar.update(len(train))
                if (epoch + 1) % self.evaluate_every and epoch + 1 < self.epochs:
                    continue
                found = score(prior, validation, samples=32, most=2000)[1]["log_prob"]
                record_metrics(folder, epoch=epoch + 1, train_bound=round(bound, 3), validation_log_prob=found)
                bar.set_postfix(validation=f"{found:.2f} nats")
                if found > state["best"]:
                    state |= {"best": found, "best_state": copy.deepcopy(prior.state_dict())}
                state |= {"epoch": epoch + 1, "prior": prior.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(checkpoint, state)
        if state["best"] == float("-inf"):
            raise ValueError(
                f"the fit of {self.name!r} diverged: no finite log p on held-out kernels; lower lr={self.lr}"
            )
        prior.load_state_dict(state["best_state"])
        return prior

    def _epoch(self, prior: Prior, optimizer: torch.optim.Optimizer, train: Tensor, epoch: int) -> float:
        """One pass; its randomness depends on seed and epoch only, so that a resumed fit ends where it would have."""
        prior.train()
        torch.manual_seed(self.seed * 100_003 + epoch)
        batches = torch.randperm(len(train)).to(train.device).split(self.batch_size)
        batches = batches[: max(len(train) // self.batch_size, 1)]
        total, bound_sum = self.epochs * len(batches), torch.zeros((), device=train.device)
        for step, batch in enumerate(self._jittered(prior, train, batches), start=epoch * len(batches)):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - step / total)
            bound = self.bound(prior, batch).mean()
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            bound_sum += bound.detach()
        return (bound_sum / len(batches)).item()

    def _jittered(self, prior: Prior, train: Tensor, batches: tuple[Tensor, ...]) -> Iterator[Tensor]:
        for batch in batches:
            kernels = train[batch]
            if self.jitter:
                white = torch.randn(len(batch), prior.dim, device=train.device)
                noise = prior.whitening.inverse(self.jitter * white) - prior.whitening.loc
                kernels = kernels + noise.view_as(kernels)
            yield kernels
