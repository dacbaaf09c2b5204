"""Plain networks of others: airbench's (Jordan 2024, MIT licence), Network in Network (2014), All-CNN, a tutorial's."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.paper import ImageShape, check_widths

LOGIT_SCALE = 1 / 9  # as in airbench


class SpeedNet(nn.Module):
    """A small stem without padding, groups of two 3×3 convolutions, a maximum over positions and a linear layer.

    The stem has twice as many filters as its patches have values, which is what whitening them takes: the directions
    of the patches and their negatives. The scales of batch normalisation stay 1, and only the stem has biases. With
    ``filters=(64, 256, 256)`` these are the layers of airbench94, 1,972,792 parameters.

    Args:
        filters: Channels of each group; each halves the image.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.
        stem: Size of the stem's kernels.

    Raises:
        ValueError: The images are too small.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (64, 256, 256),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        stem: int = 2,
    ) -> None:
        super().__init__()
        if min(image_shape[1:]) < (least := stem - 1 + 2 ** len(filters)):
            raise ValueError(
                f"the network has a {stem}×{stem} stem and halves images {len(filters)} times, so they must be "
                f"{least}×{least} or larger; got {tuple(image_shape)}"
            )
        width = 2 * image_shape[0] * stem**2
        self.stem = nn.Sequential(nn.Conv2d(image_shape[0], width, stem), nn.GELU())
        groups = [_group(before, after) for before, after in zip((width, *filters), filters, strict=False)]
        self.body = nn.Sequential(*groups)
        self.classifier = nn.Linear(filters[-1], classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, h, w)`` to logits ``(n, classes)``."""
        logits: Tensor = self.classifier(self.body(self.stem(images)).amax((2, 3)))
        return LOGIT_SCALE * logits


class NetworkInNetwork(nn.Module):
    """Blocks of a convolution and two of 1×1, a ReLU behind each, with pooling between, and the mean over positions.

    It is the network of Lin, Chen & Yan (2014), but for dropout, for other numbers of channels, and for the last
    convolution, which has no ReLU behind it.

    Args:
        filters: Channels of the blocks; the first has 5×5 kernels, and all others have 3×3 ones.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.
        stride: Of the first convolution.

    Raises:
        ValueError: The images are too small.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (192, 192, 192),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        stride: int = 1,
    ) -> None:
        super().__init__()
        if min(image_shape[1:]) < (least := stride * 2 ** (len(filters) - 1)):
            raise ValueError(
                f"the network halves images {len(filters) - 1} times behind a stride of {stride}, so they must be "
                f"{least}×{least} or larger; got {tuple(image_shape)}"
            )
        parts: list[nn.Module] = []
        for place, (width, out) in enumerate(zip((image_shape[0], *filters), filters, strict=False)):
            kernel, step = (3, 1) if place else (5, stride)
            spatial = nn.Conv2d(width, out, kernel, step, padding=kernel // 2)
            parts += [nn.MaxPool2d(2)] * (place > 0)
            parts += [spatial, nn.ReLU(), nn.Conv2d(out, out, 1), nn.ReLU(), nn.Conv2d(out, out, 1), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.Conv2d(filters[-1], classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, h, w)`` to logits ``(n, classes)``."""
        logits: Tensor = self.body(images).mean((2, 3))
        return logits


class AllCNN(nn.Module):
    """Nothing but convolutions and ReLU, two of stride 2, and the mean over positions.

    With ``filters=(96, 192)`` it is All-CNN-C of Springenberg et al. (2015) without dropout, and without a ReLU behind
    the last convolution: 1,369,738 parameters.

    Args:
        filters: Channels of the first three convolutions, and of the five behind them.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.
        norm: 1 for batch normalisation behind each convolution but the last, without biases then; 0 for none.

    Raises:
        ValueError: There are not two numbers of filters, or the images are too small.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (96, 192),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        norm: int = 0,
    ) -> None:
        super().__init__()
        check_widths(filters, 2)
        if min(image_shape[1:]) < 9:
            raise ValueError(
                "the network halves images twice, before a 3×3 convolution without padding, so they must be 9×9 or "
                f"larger; got {tuple(image_shape)}"
            )
        few, many = filters
        parts: list[nn.Module] = []
        width = image_shape[0]
        for place, out in enumerate((few, few, few, many, many, many, many, many)):
            kernel, stride = (1 if place == 7 else 3), (2 if place in (2, 5) else 1)
            parts.append(nn.Conv2d(width, out, kernel, stride, padding=int(place < 6), bias=not norm))
            parts += [*([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
            width = out
        self.body = nn.Sequential(*parts, nn.Conv2d(many, classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, h, w)`` to logits ``(n, classes)``."""
        logits: Tensor = self.body(images).mean((2, 3))
        return logits


class TutorialNet(nn.Module):
    """Two 5×5 convolutions, each with a ReLU and a pool behind it, and three linear layers, one call after the other.

    With ``filters=(6, 16)`` these are the layers of «Training a Classifier» among the tutorials of PyTorch, 62,006
    parameters for 32×32 images of 3 channels; of LeNet-5 (LeCun et al., 1998), but for its activations and pools.

    Args:
        filters: Channels of the convolutions.
        classes: Number of classes.
        image_shape: ``(c, h, w)``.

    Raises:
        ValueError: There are not two numbers of filters, or the images are too small.
    """

    def __init__(
        self, filters: tuple[int, ...] = (6, 16), classes: int = 10, image_shape: ImageShape = (3, 32, 32)
    ) -> None:
        super().__init__()
        check_widths(filters, 2)
        height, width = (((side - 4) // 2 - 4) // 2 for side in image_shape[1:])
        if min(height, width) < 1:
            raise ValueError(
                "the network has two 5×5 convolutions without padding, each with a pool behind it, so images must be "
                f"16×16 or larger; got {tuple(image_shape)}"
            )
        self.conv1 = nn.Conv2d(image_shape[0], filters[0], 5)
        self.conv2 = nn.Conv2d(filters[0], filters[1], 5)
        self.fc1, self.fc2 = nn.Linear(filters[1] * height * width, 120), nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, h, w)`` to logits ``(n, classes)``."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        units = F.relu(self.fc1(torch.flatten(maps, 1)))
        units = F.relu(self.fc2(units))
        logits: Tensor = self.fc3(units)
        return logits


def _group(width: int, out: int) -> nn.Sequential:
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(width, out, 3, padding=1, bias=False),
        "pool": nn.MaxPool2d(2),
        "bn1": _norm(out),
        "gelu1": nn.GELU(),
        "conv2": nn.Conv2d(out, out, 3, padding=1, bias=False),
        "bn2": _norm(out),
        "gelu2": nn.GELU(),
    }
    return nn.Sequential(OrderedDict(layers))


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    norm.weight.requires_grad_(False)
    return norm
