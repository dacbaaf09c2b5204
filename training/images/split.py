"""Parts of a labelled set of images: evenly spaced, held out, stratified."""

from collections.abc import Sequence

import torch
from torch import Tensor

Labelled = tuple[Tensor, Tensor]  # images (n, c, h, w) and labels (n,)


def thin(values: Tensor, most: int) -> Tensor:
    """Returns at most ``most`` evenly spaced rows."""
    return values[:: max(-(-len(values) // most), 1)]


def hold_out(train: Labelled, test: Labelled, count: int) -> tuple[Labelled, Labelled]:
    """Lets the last training images replace the test images, for choices that must not depend on these.

    Args:
        train: Images and labels to train on.
        test: Images and labels to test on.
        count: Number of training images to hold out; with 0 both parts are returned unchanged.

    Returns:
        What is left to train on, and what to test on.

    Raises:
        ValueError: No training image would be left, or ``count`` is negative.
    """
    if not count:
        return train, test
    images, labels = train
    if not 0 < count < len(images):
        raise ValueError(f"hold_out must leave some of {len(images)} training images; got {count}")
    return (images[:-count], labels[:-count]), (images[-count:], labels[-count:])


def stratified(labels: Tensor, size: int, seed: int) -> Tensor:
    """Returns the positions of ``size`` random labels ``(n,)``, as many of each class, class by class.

    Raises:
        ValueError: ``size`` is not a positive multiple of the number of classes, or a class has too few images.
    """
    classes, counts = labels.unique(return_counts=True)
    each = size // len(classes)
    if size < 1 or size % len(classes) or each > counts.min():
        raise ValueError(
            f"a stratified set must have a multiple of {len(classes)} images, as there are that many classes, and at "
            f"most {int(counts.min())} of each class; got {size}"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    return torch.cat([order[labels[order] == label][:each] for label in classes])


def parts(labels: Tensor, counts: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Splits labelled images into disjoint random parts, in which classes differ by at most one image if they can.

    Args:
        labels: ``(n,)``.
        counts: Number of images of each part.
        seed: Seed of the choice.

    Returns:
        The positions of each part; those of a larger class fill what smaller classes lack.

    Raises:
        ValueError: A count is negative, or there are fewer images than the parts need.
    """
    if min(counts) < 0 or sum(counts) > len(labels):
        raise ValueError(
            f"parts must have 0 images or more each and at most {len(labels)} in all, the number of images; got "
            f"{tuple(counts)}, {sum(counts)} in all"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    number = labels.cpu()[order].unique(return_inverse=True)[1]
    turns = torch.randperm(int(number.max()) + 1, generator=generator)  # one order of the classes, in every round
    one_hot = torch.nn.functional.one_hot(number)
    rounds = one_hot.cumsum(0).gather(1, number[:, None])[:, 0]
    dealt = order[(rounds * len(turns) + turns[number]).argsort()]
    return list(dealt[: sum(counts)].to(labels.device).split(list(counts)))
