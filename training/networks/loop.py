"""The training loop, the same for every network; on a GPU its step is recorded once and replayed."""

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LookUp = Callable[[Tensor], tuple[Tensor, Tensor]]
_Measured = TypeVar("_Measured")


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float | None = None) -> Tensor:
    """Takes one optimizer step on a loss, at ``lr`` if it is given; returns the loss, detached."""
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


class Step:
    """One step on the mean cross-entropy; on a GPU, after a few eager steps, one is recorded and then replayed.

    Launching the kernels of a small network takes longer than running them, so a replay is several times as fast.

    Args:
        network: The network, on ``device``.
        optimizer: Its optimizer, one that can be captured, such as Adam.
        look_up: Maps a batch, a tensor of integers, to images and labels by operations on tensors alone.
        device: The device of network and images.
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
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            for group in optimizer.param_groups:  # a checkpoint may have other values
                group |= {"lr": torch.zeros((), device=device), "capturable": True}
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch = self.loss = torch.empty(0)

    def __call__(self, batch: Tensor, lr: float) -> Tensor:
        """Takes a step on a batch, always of one shape, at a learning rate; returns the loss before the step."""
        batch = batch.to(self.device)
        if self.stream is None:
            return descend(self._loss(batch), self.optimizer, lr)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(lr)
        self.steps += 1
        if self.steps <= self.eager_steps:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = descend(self._loss(batch), self.optimizer)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        graph = self._record(batch) if self.graph is None else self.graph
        self.batch.copy_(batch)
        graph.replay()
        return self.loss

    def _record(self, batch: Tensor) -> torch.cuda.CUDAGraph:
        self.batch = batch.clone()
        self.optimizer.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = descend(self._loss(self.batch), self.optimizer)
        return self.graph

    def _loss(self, batch: Tensor) -> Tensor:
        images, labels = self.look_up(batch)
        return F.cross_entropy(_logits(self.network, images, self.precision), labels)


def batches(count: int, size: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draws the examples of each step, ``(steps, size)``; every pass over them has a new order.

    A batch may contain the end of one pass and the start of the next, so that all have the same size.

    Args:
        count: Number of examples.
        size: Examples per batch.
        steps: Number of batches.
        generator: A generator on the CPU.
    """
    passes = range(-(-steps * size // count))
    order = torch.cat([torch.randperm(count, generator=generator) for _ in passes])
    return order[: steps * size].view(steps, size)


def train(
    step: Callable[[Tensor, float], object],
    batches: Tensor | Sequence[Tensor],
    lr: float,
    *,
    decay: bool = False,
    warm_up: float = 0.0,
    progress: Callable[[int], object] | None = None,
    marks: Collection[int] = (),
    measure: Callable[[int], _Measured] | None = None,
) -> list[_Measured]:
    """Takes a step on each batch.

    Args:
        step: Takes a step on a batch at a learning rate, such as :class:`Step`.
        batches: The batches, one for each step.
        lr: The highest learning rate, that of the first step without ``warm_up``.
        decay: Whether the learning rate falls linearly to 0, else it is constant.
        warm_up: Share of the steps over which it rises linearly from 0 before.
        progress: Called with 1 after each step.
        marks: Numbers of the steps, from 1, after which something is measured.
        measure: Measures it; called with the number of the step.

    Returns:
        What was measured, in the order of the steps.

    Raises:
        ValueError: ``warm_up`` is not a share of the steps.
    """
    if not 0 <= warm_up < 1:
        raise ValueError(f"warm_up is a share of the steps, from 0 to less than 1; got {warm_up}")
    rising = round(warm_up * len(batches))
    found = []
    for number, batch in enumerate(batches):
        if number < rising:
            share = (number + 1) / (rising + 1)
        else:
            share = 1 - (number - rising) / (len(batches) - rising) if decay else 1
        step(batch, lr * share)
        if progress:
            progress(1)
        if measure and number + 1 in marks:
            found.append(measure(number + 1))
    return found


@torch.no_grad()
def scores(network: nn.Module, images: Tensor, labels: Tensor, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Judges each image by a network in evaluation mode; the network's mode is kept.

    Args:
        network: The network.
        images: What it takes, ``(n, …)``.
        labels: ``(n,)``.
        precision: ``float32``, or ``bfloat16`` for autocast.

    Returns:
        Whether each image is classified correctly, and its cross-entropy in nats, both ``(n,)``.
    """
    training = network.training
    network.eval()
    correct, nats = [], []
    for part, expected in zip(images.split(500), labels.split(500), strict=True):
        logits = _logits(network, part, precision)
        correct.append(logits.argmax(1) == expected)
        nats.append(F.cross_entropy(logits, expected, reduction="none"))
    network.train(training)
    return torch.cat(correct), torch.cat(nats)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the fraction of images that the network, in evaluation mode, classifies correctly; its mode is kept."""
    correct, _ = scores(network, images, labels)
    return (correct.sum() / len(labels)).item()


def _logits(network: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Runs a network on images, channels last, or on features ``(n, d)``."""
    if images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    bfloat16 = precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
        logits: Tensor = network(images)
    return logits.float()
