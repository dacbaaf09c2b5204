"""The networks of the paper's Appendix H, layer by layer."""

from collections import OrderedDict
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

ImageShape = tuple[int, int, int]


class ConvNet(nn.Module):
    """A 7×7 convolution, then 5×5 ones, and a classifier; subclasses say how many, and what comes between.

    Args:
        filters: Output channels of each convolution; the paper's by default.
        classes: Number of classes; the paper's by default.
        image_shape: ``(c, size, size)``, not smaller than ``least``; the paper's by default.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    defaults: ClassVar[tuple[tuple[int, ...], int, ImageShape]]
    pooled: ClassVar[tuple[int, ...]] = (1,)  # the convolutions that a 2×2 max-pooling follows
    least: ClassVar[int]  # size of the smallest images
    hidden: ClassVar[int] = 512  # width of the classifier's hidden layer; 0 if it is linear
    normalised: ClassVar[bool] = False

    def __init__(
        self, filters: tuple[int, ...] | None = None, classes: int | None = None, image_shape: ImageShape | None = None
    ) -> None:
        super().__init__()
        filters = self.defaults[0] if filters is None else filters
        check_widths(filters, len(self.defaults[0]))
        channels, size, width = image_shape or self.defaults[2]
        if size != width or size < self.least:
            raise ValueError(
                f"the network takes images (c, size, size), size {self.least} or more; got {(channels, size, width)}"
            )
        layers: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(pairwise((channels, *filters)), start=1):
            kernel = 7 if number == 1 else 5
            layers[f"conv{number}"] = nn.Conv2d(before, after, kernel)
            if self.normalised:
                layers[f"bn{number}"] = nn.BatchNorm2d(after)
            layers[f"relu{number}"] = nn.LeakyReLU(0.01)
            size -= kernel - 1
            if number in self.pooled:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
                size //= 2
        self.features = nn.Sequential(OrderedDict(layers, flatten=nn.Flatten()))
        self.classifier = self._classifier(filters[-1] * size**2, classes or self.defaults[1])

    def _classifier(self, width: int, classes: int) -> nn.Module:
        if not self.hidden:
            return nn.Linear(width, classes)
        layers: dict[str, nn.Module] = {"fc1": nn.Linear(width, self.hidden)}
        if self.normalised:
            layers["bn1"] = nn.BatchNorm1d(self.hidden)
        layers |= {"relu1": nn.LeakyReLU(0.01), "linear": nn.Linear(self.hidden, classes)}
        return nn.Sequential(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, size, size)`` to logits ``(n, classes)``."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class MNISTNet(ConvNet):
    """Two convolutions and a linear layer, for 28×28 grey images in the paper (Appendix H.2).

    ``filters=(256, 512)`` is the source network (3,336,202 parameters), ``(32, 128)`` the final one (115,658).
    """

    defaults, pooled, least, hidden = ((32, 128), 10, (1, 28, 28)), (1, 2), 18, 0


class CIFARNet(ConvNet):
    """Three convolutions and two linear layers, for 32×32 colour images in the paper (Appendix H.3).

    With the default ``filters``, those of the paper, it has 5,759,498 parameters.
    """

    defaults, least = ((128, 256, 256), 10, (3, 32, 32)), 24


class CIFARSource(ConvNet):
    """Four normalised convolutions and two linear layers: the source network on CIFAR-100 (Appendix H.3).

    With the default ``filters`` and 100 classes, those of the paper, it has 6,071,652 parameters.
    """

    defaults, least, normalised = ((128, 256, 256, 512), 100, (3, 32, 32)), 32, True


def check_widths(filters: tuple[int, ...], count: int) -> None:
    """Raises ``ValueError`` if the number of widths is not the one that a network takes."""
    if len(filters) != count:
        raise ValueError(f"the network takes filters of length {count}; got {tuple(filters)}")
