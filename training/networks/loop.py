"""One step of training, the same whichever network: on a GPU it is recorded once and replayed."""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LookUp = Callable[[Tensor], tuple[Tensor, Tensor]]


class Step:
    """One step on the mean cross-entropy; on a GPU the first few run as they are, then one is recorded and replayed.

    The launches of a small network's kernels take longer than the kernels, so that a replay is several times as fast.

    Args:
        network: The network, on ``device``.
        optimizer: Its optimizer, one that can be captured, such as Adam.
        look_up: Maps a batch, a tensor of whole numbers, to images and labels by operations on tensors alone.
        device: Where all lie.
        precision: ``float32``, or ``bfloat16`` for autocast with float32 weights.
    """

    eager_steps: ClassVar[int] = 3

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        look_up: LookUp,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.network, self.optimizer, self.look_up = network, optimizer, look_up
        self.device, self.precision = device, precision
        self.on_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.on_gpu else None
        if self.on_gpu:
            for group in optimizer.param_groups:  # a checkpoint may say otherwise
                group |= {"lr": torch.zeros((), device=device), "capturable": True}
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch = self.loss = torch.empty(0)

    def __call__(self, batch: Tensor, lr: float) -> Tensor:
        """Takes a step on a batch, always of one shape, at a learning rate; returns the loss before it."""
        for group in self.optimizer.param_groups:
            if self.on_gpu:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        if not self.on_gpu:
            return self._take(batch)
        self.steps += 1
        if self.steps <= self.eager_steps:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = self._take(batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        if self.graph is None:
            self._record(batch)
        self.batch.copy_(batch)
        self.graph.replay()
        return self.loss

    def _record(self, batch: Tensor) -> None:
        self.batch = batch.clone()
        self.optimizer.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self._take(self.batch)

    def _take(self, batch: Tensor) -> Tensor:
        images, labels = self.look_up(batch)
        bfloat16 = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()
