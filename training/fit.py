"""Fitting: kernels → prior, by maximum likelihood or the evidence lower bound; the best on held-out kernels wins."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

import dwp_init
from dwp_init import Gaussian, KernelVAE, Prior, load_prior, save_prior
from dwp_init.files import write_bytes
from training.evaluate import SCORES, SMOKE, sample_statistics, score
from training.kernels import KernelSet
from training.stages import Context, Stage, check_counts, load_checkpoint, read_done, record_metrics, save_checkpoint

FAMILIES = ("vae", "gaussian")
PRIOR, CHECKPOINT = "prior", "checkpoint.pt"


@dataclass(frozen=True)
class Fit(Stage):
    """Fits one prior to a kernel data set and saves it under ``prior/``.

    A VAE is trained by AdamW on the evidence lower bound (Eq. 4) or, with several ``importance_samples``, the
    importance-weighted one; mean over the batch, learning rate decaying linearly to 0 at every step. Every
    ``evaluate_every`` epochs log p of the validation kernels is estimated, and the best state is kept.

    Args:
        needs: The stage with the kernels.
        name: What the prior will be called.
        family: ``vae`` or ``gaussian``.
        network: ``dense``, or ``paper`` for the networks of Appendix H.1.
        latent_dim: Dimensions of z.
        hidden: Width of the dense decoder; 128 by default.
        dropout: In the dense encoder, while fitting.
        min_scale: Floor of the decoder's standard deviation.
        whiten: Whether the networks see whitened kernels.
        importance_samples: Latents per kernel and step; 1, the evidence lower bound, in the paper.
        epochs: Passes over the kernels; 300 in the paper.
        batch_size: Kernels per step.
        lr: Initial learning rate.
        evaluate_every: Epochs between two looks at the validation kernels.
        seed: Of initialisation, order and noise.
    """

    needs: tuple[str, ...] = ("kernels",)
    name: str = "my-prior"
    family: str = "vae"
    network: str = "dense"
    latent_dim: int = 16
    hidden: int | None = None
    dropout: float = 0.0
    min_scale: float = 0.05
    whiten: bool = True
    importance_samples: int = 1
    epochs: int = 300
    batch_size: int = 128
    lr: float = 1e-3
    evaluate_every: int = 5
    seed: int = 0

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        if self.family not in FAMILIES:
            raise ValueError(f"family is one of {', '.join(FAMILIES)}; got {self.family!r}")
        check_counts(epochs=self.epochs, batch_size=self.batch_size, evaluate_every=self.evaluate_every)
        check_counts(importance_samples=self.importance_samples)
        kernels = KernelSet.load(context.out / self.needs[0])
        prior = self._fit(kernels, folder, context.device).eval()
        effort, draws = (SMOKE, 1000) if context.smoke else ({}, 10_000)
        values, metrics = score(prior, kernels.test, **effort)
        write_bytes(folder / SCORES, save({"log_prob": values}))
        control = Gaussian(prior.kernel_shape).fit_(kernels.train)
        metrics["gaussian_log_prob"] = score(control, kernels.test, **effort)[1]["log_prob"]
        prior.cpu()
        metrics["samples"] = sample_statistics(prior, kernels.test, draws)
        made = read_done(context.out / self.needs[0])
        prior.details = {
            "name": self.name,
            "license": "MIT",
            "source": made["source"] | {key: made[key] for key in ("kernels", "kept", "norm_threshold") if key in made},
            "fit": {key: getattr(self, key) for key in ("importance_samples", "epochs", "batch_size", "lr", "seed")},
            "metrics": metrics,
            "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
        }
        save_prior(prior, folder / PRIOR)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return {"metrics": metrics}

    def _fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        shape = tuple(kernels.train.shape[1:])
        if self.family == "gaussian":
            return Gaussian(shape).fit_(kernels.train)
        torch.manual_seed(self.seed)
        vae = KernelVAE(
            shape,
            network=self.network,
            latent_dim=self.latent_dim,
            hidden=self.hidden,
            dropout=self.dropout,
            min_scale=self.min_scale,
            whiten=self.whiten,
        )
        if self.whiten:
            vae.whitening.fit_(kernels.train.flatten(1))
        return self._train(vae.to(device), kernels.train.to(device), kernels.validation.to(device), folder)

    def _train(self, vae: KernelVAE, train: Tensor, validation: Tensor, folder: Path) -> KernelVAE:
        optimizer = torch.optim.AdamW(vae.parameters(), lr=self.lr, weight_decay=0)
        state = {"epoch": 0, "best": float("-inf"), "best_state": copy.deepcopy(vae.state_dict())}
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            vae.load_state_dict(state["vae"])
            optimizer.load_state_dict(state["optimizer"])
        size = {"total": self.epochs * len(train), "initial": state["epoch"] * len(train)}
        with tqdm(**size, unit="kernel", unit_scale=True, desc=self.name) as bar:
            for epoch in range(state["epoch"], self.epochs):
                bound = self._epoch(vae, optimizer, train, epoch)
                bar.update(len(train))
                if (epoch + 1) % self.evaluate_every and epoch + 1 < self.epochs:
                    continue
                found = score(vae, validation, samples=32, most=2000)[1]["log_prob"]
                record_metrics(folder, epoch=epoch + 1, train_bound=round(bound, 3), validation_log_prob=found)
                bar.set_postfix(validation=f"{found:.2f} nats")
                if found > state["best"]:
                    state |= {"best": found, "best_state": copy.deepcopy(vae.state_dict())}
                state |= {"epoch": epoch + 1, "vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(checkpoint, state)
        if state["best"] == float("-inf"):
            raise ValueError(
                f"the fit of {self.name!r} diverged: no finite log p on held-out kernels; lower lr={self.lr}"
            )
        vae.load_state_dict(state["best_state"])
        return vae

    def _bound(self, vae: KernelVAE, kernels: Tensor) -> Tensor:
        if self.importance_samples == 1:
            return vae.elbo(kernels)
        return vae.importance_bound(kernels, self.importance_samples)

    def _epoch(self, vae: KernelVAE, optimizer: torch.optim.Optimizer, train: Tensor, epoch: int) -> float:
        """One pass; its randomness depends on seed and epoch only, so that a resumed fit ends where it would have."""
        vae.train()
        torch.manual_seed(self.seed * 100_003 + epoch)
        batches = torch.randperm(len(train)).to(train.device).split(self.batch_size)
        batches = batches[: max(len(train) // self.batch_size, 1)]
        total, bound_sum = self.epochs * len(batches), torch.zeros((), device=train.device)
        for step, batch in enumerate(batches, start=epoch * len(batches)):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - step / total)
            bound = self._bound(vae, train[batch]).mean()
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            bound_sum += bound.detach()
        return (bound_sum / len(batches)).item()


def fitted_prior(folder: Path) -> Prior:
    """Loads the prior that a finished fit left in its stage's folder."""
    return load_prior(folder / PRIOR)
