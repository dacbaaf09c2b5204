"""Source networks: many small CNNs trained from different seeds, whose kernels the priors learn (Section 3.3).

One process per network proved twice as fast on a CPU as one ``torch.func`` ensemble of all of them: see
``python -m training run source_throughput``. On a GPU a step is recorded once and replayed, for the launches of a small
network's kernels take longer than the kernels.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from dwp_init.storage import write_bytes
from training.engine.options import check_counts
from training.engine.records import load_checkpoint, record_metrics, save_checkpoint
from training.engine.stage import Context, Stage
from training.engine.workers import Progress, run_jobs
from training.networks.loop import Step, accuracy
from training.networks.registry import build


@dataclass(frozen=True)
class Sources(Stage):
    """Trains ``networks`` networks and keeps the weights of each in ``network-<seed>.safetensors``.

    The objective is the mean cross-entropy plus ``l2 · Σ w²`` over the convolutions, biases included and without a
    factor ½, as in the authors' experiments; Adam, learning rate decaying linearly to 0 at every step.

    Args:
        data: Name of the data set.
        network: A network of :data:`training.networks.registry.NETWORKS`; the paper's for notMNIST by default.
        filters: Its channels; (256, 512) in the paper.
        networks: How many networks, with seeds ``first_seed``, ``first_seed + 1``, …
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Initial learning rate.
        l2: Coefficient of the penalty.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        init_scale: Factor on the initial weights of convolutions with kernels larger than 1×1. Below 1, where they are
            normalised, kernels soon are what was learned rather than the noise that they began with.
        first_seed: Seed of the first network.
    """

    data: str = "notmnist"
    network: str = "mnist"
    filters: tuple[int, ...] = (256, 512)
    networks: int = 100
    epochs: int = 100
    batch_size: int = 256
    lr: float = 1e-3
    l2: float = 1e-3
    precision: str = "float32"
    init_scale: float = 1.0
    first_seed: int = 0

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Trains what is missing, on ``context.workers`` processes; a network in progress continues where it was."""
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is 'float32' or 'bfloat16'; got {self.precision!r}")
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"init_scale must be a number above 0; got {self.init_scale}")
        check_counts(networks=self.networks, epochs=self.epochs, batch_size=self.batch_size)
        images, labels = context.images(self.data, "train").to(context.device)
        test = context.images(self.data, "test").to(context.device)
        seeds = range(self.first_seed, self.first_seed + self.networks)
        missing = [seed for seed in seeds if not network_file(folder, seed).exists()]
        each = self.epochs * len(images)
        size = {"total": self.networks * each, "initial": (self.networks - len(missing)) * each}
        job = _Job(self, folder, context.device, images, labels, test)
        with tqdm(**size, unit="image", unit_scale=True, desc="sources") as bar:
            for metrics in run_jobs(job.train, missing, context.workers, bar.update):
                record_metrics(folder, **metrics)
        for left in folder.glob("*.checkpoint"):
            left.unlink()
        found = torch.tensor([_recorded_accuracy(network_file(folder, seed)) for seed in seeds])
        return {
            "networks": self.networks,
            "parameters": sum(p.numel() for p in job.network().parameters()),
            "test_accuracy_mean": round(found.mean().item(), 4),
            "test_accuracy_min": round(found.min().item(), 4),
        }


def network_file(folder: Path, seed: int) -> Path:
    """Where the weights of the network with this seed are kept."""
    return folder / f"network-{seed:03d}.safetensors"


@dataclass(frozen=True)
class _Job:
    stage: Sources
    folder: Path
    device: torch.device
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor]

    def network(self) -> nn.Module:
        """Returns an untrained network for the images."""
        classes = int(self.labels.max()) + 1
        return build(self.stage.network, self.stage.filters, classes, tuple(self.images.shape[1:]))

    def train(self, seed: int, progress: Progress) -> dict[str, Any]:
        """Trains one network to the end, from its checkpoint if it has one."""
        stage, n = self.stage, len(self.images)
        steps_per_epoch = max(n // stage.batch_size, 1)
        torch.manual_seed(seed)
        network = self.network().to(self.device, memory_format=torch.channels_last)
        _rescale_(network, stage.init_scale)
        convolutions = {p for module in network.modules() if isinstance(module, nn.Conv2d) for p in module.parameters()}
        groups = [
            {"params": [p for p in network.parameters() if p in convolutions], "weight_decay": 2 * stage.l2},
            {"params": [p for p in network.parameters() if p not in convolutions]},
        ]
        optimizer = torch.optim.Adam(groups, lr=stage.lr, fused=True, capturable=self.device.type == "cuda")
        checkpoint = self.folder / f"network-{seed:03d}.checkpoint"
        first = _restore(checkpoint, network, optimizer)
        progress(first * n)
        step = Step(network, optimizer, self._look_up, self.device, stage.precision)
        for epoch in range(first, stage.epochs):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            loss = self._epoch(step, order.to(self.device), epoch * steps_per_epoch)
            if not math.isfinite(loss):
                raise ValueError(
                    f"network {seed} diverged in epoch {epoch + 1}: its loss is {loss}; lower lr={stage.lr}"
                )
            if epoch + 1 < stage.epochs:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
                save_checkpoint(checkpoint, state)
            progress(n)
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        metrics = {"seed": seed, "train_loss": round(loss, 5), "test_accuracy": round(accuracy(network, *self.test), 4)}
        write_bytes(network_file(self.folder, seed), save(weights, {key: str(value) for key, value in metrics.items()}))
        checkpoint.unlink(missing_ok=True)
        return metrics

    def _look_up(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[batch], self.labels[batch]

    def _epoch(self, step: Step, order: Tensor, first: int) -> float:
        """Passes over the images once; returns the mean loss."""
        batches = order.split(self.stage.batch_size)
        batches = batches[: max(len(order) // self.stage.batch_size, 1)]
        total = self.stage.epochs * len(batches)
        loss_sum = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=first):
            loss_sum += step(batch, self.stage.lr * (1 - number / total))
        return (loss_sum / len(batches)).item()


@torch.no_grad()
def _rescale_(network: nn.Module, factor: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and math.prod(module.kernel_size) > 1:
            module.weight.mul_(factor)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = load_checkpoint(path)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"]


def _recorded_accuracy(path: Path) -> float:
    with safe_open(path, "pt") as file:
        return float(file.metadata()["test_accuracy"])
