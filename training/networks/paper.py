"""The networks of the paper's Appendix H, layer by layer."""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn


class MNISTNet(nn.Module):
    """Two convolutions and a linear layer, for 28×28 grey images in the paper (Appendix H.2).

    ``filters=(256, 512)`` is the source network (3,336,202 parameters), ``(32, 128)`` the final one (115,658).

    Args:
        filters: Output channels of the 7×7 and of the 5×5 convolution.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 18 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    def __init__(
        self,
        filters: tuple[int, int] = (32, 128),
        classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        check_filters(filters, 2)
        size = ((_square(image_shape, 18) - 6) // 2 - 4) // 2
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(image_shape[0], filters[0], 7),
                relu1=nn.LeakyReLU(0.01),
                mp1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(filters[0], filters[1], 5),
                relu2=nn.LeakyReLU(0.01),
                mp2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
            )
        )
        self.classifier = nn.Linear(filters[1] * size**2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, size, size)`` to logits ``(n, classes)``."""
        return self.classifier(self.features(images))


class CIFARNet(nn.Module):
    """Three convolutions and two linear layers, for 32×32 colour images in the paper (Appendix H.3).

    The paper's has 5,759,498 parameters.

    Args:
        filters: Channels of the 7×7 and of the two 5×5 convolutions.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 24 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    def __init__(
        self,
        filters: tuple[int, int, int] = (128, 256, 256),
        classes: int = 10,
        image_shape: tuple[int, int, int] = (3, 32, 32),
    ) -> None:
        super().__init__()
        check_filters(filters, 3)
        size = (_square(image_shape, 24) - 6) // 2 - 8
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(image_shape[0], filters[0], 7),
                relu1=nn.LeakyReLU(0.01),
                maxpool=nn.MaxPool2d(2),
                conv2=nn.Conv2d(filters[0], filters[1], 5),
                relu2=nn.LeakyReLU(0.01),
                conv3=nn.Conv2d(filters[1], filters[2], 5),
                relu3=nn.LeakyReLU(0.01),
                flatten=nn.Flatten(),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(filters[2] * size**2, 512),
                relu1=nn.LeakyReLU(0.01),
                linear=nn.Linear(512, classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, size, size)`` to logits ``(n, classes)``."""
        return self.classifier(self.features(images))


class CIFARSource(nn.Module):
    """Four normalised convolutions and two linear layers: the source network on CIFAR-100 (Appendix H.3).

    ``filters=(128, 256, 256, 512)`` and 100 classes are the paper's (6,071,652 parameters).

    Args:
        filters: Channels of the 7×7 and of the three 5×5 convolutions.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 32 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers; or ``filters`` has another length.
    """

    def __init__(
        self,
        filters: tuple[int, int, int, int] = (128, 256, 256, 512),
        classes: int = 100,
        image_shape: tuple[int, int, int] = (3, 32, 32),
    ) -> None:
        super().__init__()
        check_filters(filters, 4)
        size = (_square(image_shape, 32) - 6) // 2 - 12
        layers: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(pairwise((image_shape[0], *filters)), start=1):
            layers[f"conv{number}"] = nn.Conv2d(before, after, 7 if number == 1 else 5)
            layers[f"bn{number}"] = nn.BatchNorm2d(after)
            layers[f"relu{number}"] = nn.LeakyReLU(0.01)
            if number == 1:
                layers["maxpool"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(OrderedDict(layers, flatten=nn.Flatten()))
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(filters[3] * size**2, 512),
                bn1=nn.BatchNorm1d(512),
                relu1=nn.LeakyReLU(0.01),
                linear=nn.Linear(512, classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, size, size)`` to logits ``(n, classes)``."""
        return self.classifier(self.features(images))


def check_filters(filters: tuple[int, ...], count: int) -> None:
    """Raises ``ValueError`` where a network of ``count`` widths is given another number of them."""
    if len(filters) != count:
        raise ValueError(f"the network takes filters of length {count}; got {tuple(filters)}")


def _square(image_shape: tuple[int, int, int], least: int) -> int:
    """Returns the size of square images, or raises."""
    _, height, width = image_shape
    if height != width or height < least:
        raise ValueError(f"the network takes images (c, size, size), size {least} or more; got {tuple(image_shape)}")
    return height
