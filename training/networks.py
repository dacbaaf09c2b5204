"""The networks of the paper's Appendix H, layer by layer."""

from collections import OrderedDict

from torch import Tensor, nn


class MNISTNet(nn.Module):
    """Two convolutions and a linear layer, for 28×28 grey images in the paper (Appendix H.2).

    ``filters=(256, 512)`` is the source network (3,336,202 parameters), ``(32, 128)`` the final one (115,658).

    Args:
        filters: Output channels of the 7×7 and of the 5×5 convolution.
        classes: Number of classes.
        image_shape: ``(c, size, size)``, size 18 or more.

    Raises:
        ValueError: The images are not square, or too small for the layers.
    """

    def __init__(
        self,
        filters: tuple[int, int] = (32, 128),
        classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height != width or height < 18:
            raise ValueError(f"the network takes images (c, size, size), size 18 or more; got {tuple(image_shape)}")
        size = ((height - 6) // 2 - 4) // 2
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, filters[0], 7),
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
    """Three convolutions and two linear layers for 32×32 colour images (Appendix H.3; 5,759,498 parameters)."""

    def __init__(self, filters: tuple[int, int, int] = (128, 256, 256), classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, filters[0], 7),
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
                fc1=nn.Linear(filters[2] * 25, 512),
                relu1=nn.LeakyReLU(0.01),
                linear=nn.Linear(512, classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, 3, 32, 32)`` to logits ``(n, classes)``."""
        return self.classifier(self.features(images))
