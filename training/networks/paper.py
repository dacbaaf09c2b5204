"""The networks of the paper's Appendix H, layer by layer."""

from collections import OrderedDict
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

ImageShape = tuple[int, int, int]


class _ConvNet(nn.Module):
    """A 7×7 convolution, then 5×5 ones, and a classifier; subclasses say how many, and what comes between."""

    convolutions: ClassVar[int]
    pooled: ClassVar[tuple[int, ...]] = (1,)  # the convolutions that a 2×2 max-pooling follows
    least: ClassVar[int]  # size of the smallest images
    hidden: ClassVar[int] = 512  # width of the classifier's hidden layer; 0 if it is linear
    normalised: ClassVar[bool] = False

    def __init__(self, filters: tuple[int, ...], classes: int, image_shape: ImageShape) -> None:
        super().__init__()
        check_widths(filters, self.convolutions)
        channels, size, width = image_shape
        if size != width or size < self.least:
            raise ValueError(
                f"the network takes images (c, size, size), size {self.least} or more; got {tuple(image_shape)}"
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
        self.classifier = self._classifier(filters[-1] * size**2, classes)

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


class MNISTNet(_ConvNet):
    """Two convolutions and a linear layer, for 28×28 grey images in the paper (Appendix H.2).

    ``filters=(256, 512)`` is the source network (3,336,202 parameters), ``(32, 128)`` the final one (115,658).

    Args:
        filters: Output channels of the 7×7 and of the 5×5 convolution.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 18 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    convolutions, pooled, least, hidden = 2, (1, 2), 18, 0

    def __init__(
        self, filters: tuple[int, ...] = (32, 128), classes: int = 10, image_shape: ImageShape = (1, 28, 28)
    ) -> None:
        super().__init__(filters, classes, image_shape)


class CIFARNet(_ConvNet):
    """Three convolutions and two linear layers, for 32×32 colour images in the paper (Appendix H.3).

    With the default ``filters``, those of the paper, it has 5,759,498 parameters.

    Args:
        filters: Channels of the 7×7 and of the two 5×5 convolutions.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 24 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    convolutions, least = 3, 24

    def __init__(
        self, filters: tuple[int, ...] = (128, 256, 256), classes: int = 10, image_shape: ImageShape = (3, 32, 32)
    ) -> None:
        super().__init__(filters, classes, image_shape)


class CIFARSource(_ConvNet):
    """Four normalised convolutions and two linear layers: the source network on CIFAR-100 (Appendix H.3).

    ``filters=(128, 256, 256, 512)`` and 100 classes are the paper's (6,071,652 parameters).

    Args:
        filters: Channels of the 7×7 and of the three 5×5 convolutions.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 32 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    convolutions, least, normalised = 4, 32, True

    def __init__(
        self,
        filters: tuple[int, ...] = (128, 256, 256, 512),
        classes: int = 100,
        image_shape: ImageShape = (3, 32, 32),
    ) -> None:
        super().__init__(filters, classes, image_shape)


def check_widths(filters: tuple[int, ...], count: int) -> None:
    """Raises ``ValueError`` if the number of widths is not the one that a network takes."""
    if len(filters) != count:
        raise ValueError(f"the network takes filters of length {count}; got {tuple(filters)}")
