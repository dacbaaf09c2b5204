"""Source networks: many small CNNs trained from different seeds, whose kernels the priors learn (Section 3.3).

One process per network is twice as fast on a CPU as one ``torch.func`` ensemble of all of them: see
``python -m training run source_throughput``.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dwp_init.storage import safetensors_bytes, write_bytes
from training.engine.options import check_counts
from training.engine.records import Row, file_sha256, is_as_stated, load_checkpoint, save_checkpoint
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.kernels.checkpoints import network_file
from training.networks.loop import Step, accuracy
from training.networks.registry import build


@dataclass(frozen=True)
class Sources(Stage):
    """Trains networks and keeps the weights of each in ``network-<seed>.safetensors``.

    The objective is the mean cross-entropy plus ``l2 · Σ w²`` over the convolutions, biases included and without a
    factor ½, as in the authors' experiments; Adam, learning rate decaying linearly to 0 at every step.

    Args:
        data: Name of the data set.
        network: A name for :func:`training.networks.registry.build`; by default the paper's network for notMNIST.
        filters: Its channels; (256, 512) in the paper.
        networks: Number of networks, with seeds ``first_seed``, ``first_seed + 1``, …
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Initial learning rate.
        l2: Coefficient of the penalty.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
        init_scale: Factor on the initial weights of convolutions with kernels larger than 1×1. Where these are followed
            by normalisation, a factor below 1 makes the initial noise a smaller part of the trained kernels.
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
        """Trains the missing networks on ``context.engine``; one in progress resumes from its checkpoint."""
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is 'float32' or 'bfloat16'; got {self.precision!r}")
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"init_scale must be a number above 0; got {self.init_scale}")
        check_counts(networks=self.networks, epochs=self.epochs, batch_size=self.batch_size)
        images, labels = context.images(self.data, "train").to(context.device)
        test = context.images(self.data, "test").to(context.device)
        seeds = range(self.first_seed, self.first_seed + self.networks)
        job = _Job(self, folder, context.device, images, labels, test)
        with Sweep(
            folder,
            ("seed",),
            total=self.networks,
            each=self.epochs * len(images),
            engine=context.engine,
            unit="image",
            desc="sources",
            checkpoint=job.checkpoint,
            made=lambda row: is_as_stated(network_file(folder, row["seed"]), row.get("sha256")),
        ) as sweep:
            found = [row["test_accuracy"] for row in sweep(job.train, [(seed,) for seed in seeds])]
        return {
            "networks": self.networks,
            "parameters": sum(p.numel() for p in job.network().parameters()),
            "test_accuracy_mean": round(sum(found) / len(found), 4),
            "test_accuracy_min": round(min(found), 4),
        }


@dataclass(frozen=True)
class _Job:
    stage: Sources
    folder: Path
    device: torch.device
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor]

    def checkpoint(self, run: tuple[int]) -> Path:
        return self.folder / f"network-{run[0]:03d}.checkpoint"

    def network(self) -> nn.Module:
        """Returns an untrained network for the images."""
        _, channels, height, width = self.images.shape
        classes = int(self.labels.max()) + 1
        return build(self.stage.network, self.stage.filters, classes, (channels, height, width))

    def train(self, run: tuple[int], progress: Progress) -> list[Row]:
        """Trains the network of a seed to the end, from its checkpoint if it has one."""
        stage, n, (seed,) = self.stage, len(self.images), run
        torch.manual_seed(seed)
        network = self.network().to(self.device).to(memory_format=torch.channels_last)
        _rescale_(network, stage.init_scale)
        optimizer = self._optimizer(network)
        first, loss, checkpoint = 0, math.nan, self.checkpoint(run)
        if checkpoint.exists():
            state = load_checkpoint(checkpoint)
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["epoch"]
        progress(first * n)
        step = Step(network, optimizer, self._look_up, self.device, stage.precision)
        for epoch in range(first, stage.epochs):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            loss = self._epoch(step, order.to(self.device), epoch)
            if not math.isfinite(loss):
                raise ValueError(
                    f"network {seed} diverged in epoch {epoch + 1}: its loss is {loss}; lower lr={stage.lr}"
                )
            if epoch + 1 < stage.epochs:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
                save_checkpoint(checkpoint, state)
            progress(n)
        row = {"seed": seed, "train_loss": round(loss, 5), "test_accuracy": round(accuracy(network, *self.test), 4)}
        metadata = {key: str(value) for key, value in row.items()}
        path = network_file(self.folder, seed)
        write_bytes(path, safetensors_bytes(network.state_dict(), metadata))
        return [row | {"sha256": file_sha256(path)}]

    def _optimizer(self, network: nn.Module) -> torch.optim.Adam:
        """Returns Adam with weight decay on the convolutions alone."""
        convolutions = {p for module in network.modules() if isinstance(module, nn.Conv2d) for p in module.parameters()}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in network.parameters() if p in convolutions], "weight_decay": 2 * self.stage.l2},
            {"params": [p for p in network.parameters() if p not in convolutions]},
        ]
        return torch.optim.Adam(groups, lr=self.stage.lr, fused=True, capturable=self.device.type == "cuda")

    def _look_up(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[batch], self.labels[batch]

    def _epoch(self, step: Step, order: Tensor, epoch: int) -> float:
        """Passes over the images once; returns the mean loss."""
        batches = torch.split(order, self.stage.batch_size)[: max(len(order) // self.stage.batch_size, 1)]
        loss_sum = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            done = epoch * len(batches) + number
            loss_sum += step(batch, self.stage.lr * (1 - done / (self.stage.epochs * len(batches))))
        return (loss_sum / len(batches)).item()


@torch.no_grad()
def _rescale_(network: nn.Module, factor: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and math.prod(module.kernel_size) > 1:
            module.weight.mul_(factor)
