"""Training one Bayesian network on batches of any source."""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from torch import Tensor

from dwp_init.bayes.layers import scale_names
from dwp_init.bayes.objective import Objective, Terms
from dwp_init.bayes.schedule import Descent, Schedule

Batches = Iterable[tuple[Tensor, Tensor]]


def train_(
    objective: Objective,
    batches: Batches,
    count: int | None = None,
    *,
    steps: int,
    lr: float = 1e-3,
    scale_lr: float | None = None,
    warm_up: int = 0,
    temperature: float = 1.0,
    progress: Callable[[Terms], Any] = lambda terms: None,
) -> None:
    """Maximises the bound of a network by Adam, with learning rates that fall linearly to 0.

    Args:
        objective: The network and its divergences, trained in place. It is in evaluation mode afterwards, in which it
            predicts from the mean weights: after training with wide scales, :func:`dwp_init.bayes.predict_samples` may
            be far better.
        batches: Pairs of images and labels, such as a ``DataLoader``; they are moved to the network's device. It is
            iterated again and again.
        count: Number of images in the training set, to which a batch is scaled up; ``len(batches.dataset)`` by
            default. Augmented copies of an image do not count: they would make the posterior colder without saying so.
        steps: Number of steps.
        lr: As in :class:`Schedule`.
        scale_lr: As in :class:`Schedule`.
        warm_up: As in :class:`Schedule`.
        temperature: As in :class:`Schedule`.
        progress: Called after each step with the parts of the bound.

    Raises:
        ValueError: ``count`` is not known, the batches come to an end and cannot be iterated again, the bound is
            infinite or NaN, before the step that it would spoil, or a parameter is after the last step.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> priors = bayes.bayesianize_(network)
        >>> data = torch.utils.data.TensorDataset(torch.randn(20, 1, 28, 28), torch.arange(20) % 2)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=10)
        >>> objective = bayes.Objective(network, priors.terms())
        >>> bayes.train_(objective, loader, steps=3, progress=lambda terms: print(terms.kl.shape))
        torch.Size([1])
        torch.Size([1])
        torch.Size([1])
    """
    schedule = Schedule(steps, lr=lr, scale_lr=scale_lr, warm_up=warm_up, temperature=temperature)
    count = _count(batches) if count is None else count
    if not isinstance(count, int) or count < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"count must be a whole number of images, 1 or more; got {count!r}")
    trained = {name: value for name, value in objective.named_parameters() if value.requires_grad}
    descent, device = Descent(schedule, trained, scale_names(objective)), next(objective.parameters()).device
    objective.train()
    source = _endless(batches)
    try:
        for step in range(steps):
            images, labels = (part.to(device) for part in next(source))
            terms: Terms = objective(images, labels, count)
            seen = Terms(terms.nll.detach(), terms.kl.detach())
            descent.check_finite(step, *seen, parameters=False)  # before the step that it would spoil
            descent.take_step(step, *terms)
            if step + 1 == steps:
                descent.check_finite(steps, *seen)
            progress(seen)
    finally:
        objective.eval()


def _count(batches: Batches) -> int:
    """Returns the number of images of a loader; raises ``ValueError`` if it has none, or may draw a part of them."""
    dataset, of_batches = getattr(batches, "dataset", None), getattr(batches, "batch_sampler", None)
    drawn = batches if of_batches is None else of_batches  # a loader with a batch_sampler ignores its own sampler
    sampler = getattr(drawn, "sampler", None)
    count = len(dataset) if isinstance(dataset, Sized) else 0
    if count < 1 or (sampler is None and drawn is of_batches):
        kind = type(drawn).__name__ + " of batches" * (drawn is of_batches)
        raise ValueError(f"count, the number of training images, is not known from a {kind}; give it")
    if isinstance(sampler, Sized) and len(sampler) != count:
        raise ValueError(
            f"the loader draws {len(sampler)} of {count} images in a pass; give count=, how many there are"
        )
    return count


def _endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        empty = True
        for images, labels in batches:
            empty = False
            yield images, labels
        if empty:
            raise ValueError(f"the batches ended: {type(batches).__name__} cannot be iterated again; give a DataLoader")
