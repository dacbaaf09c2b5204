"""Current kinds of networks for 32×32 images: residual, depthwise, inverted and plain.

Each is built by :func:`training.networks.registry.build`; each class says what ``filters`` means.
``classes`` is the number of classes and ``image_shape`` the ``(c, h, w)`` of the images.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.paper import ImageShape, check_widths


class _ImageClassifier(nn.Module):
    """A stem, a body and a head of convolutions, the mean over positions, a normalisation and a linear layer.

    Args:
        body: The body; the other parts of convolutions and the normalisation may be missing.
        width: Number of features that are classified.
        classes: Number of classes.
        stem: The stem.
        head: The head.
        norm: The normalisation of the features.
    """

    def __init__(
        self,
        body: nn.Module,
        width: int,
        classes: int,
        *,
        stem: nn.Module | None = None,
        head: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.body = body
        self.head = head or nn.Identity()
        self.norm = norm or nn.Identity()
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(n, c, h, w)`` to logits ``(n, classes)``."""
        features = self.head(self.body(self.stem(images))).mean((2, 3))
        logits: Tensor = self.classifier(self.norm(features))
        return logits


class ResNet(_ImageClassifier):
    """A residual network of basic blocks with batch normalisation (He et al. 2016, Section 4.2).

    ``ResNet((16, 32, 64), blocks=3)`` is ResNet-20.

    Args:
        filters: Channels of each stage; all but the first halve the image.
        blocks: Basic blocks in each stage.
        stem: Size of the first convolution's kernels, 3 or 7.
        stride: Stride of the first convolution.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (16, 32, 64),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        blocks: int = 3,
        stem: int = 3,
        stride: int = 1,
    ) -> None:
        first = nn.Sequential(*_conv_bn(image_shape[0], filters[0], stem, stride), nn.ReLU())
        body = [_BasicBlock(*sizes) for sizes in _blocks(filters, blocks)]
        super().__init__(nn.Sequential(*body), filters[-1], classes, stem=first)


class _BasicBlock(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_bn(width, out, 3, stride)
        self.conv2, self.bn2 = _conv_bn(out, out, 3)
        plain = stride == 1 and width == out
        self.shortcut = nn.Identity() if plain else nn.Sequential(*_conv_bn(width, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ConvMixer(_ImageClassifier):
    """Patches, then alternating depthwise and pointwise convolutions (Trockman & Kolter 2022).

    Args:
        filters: ``(width,)``.
        blocks: Number of pairs of a depthwise and a pointwise convolution.
        kernel: Size of the depthwise kernels.
        patch: Size and stride of the stem.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (64,),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        blocks: int = 8,
        kernel: int = 7,
        patch: int = 2,
    ) -> None:
        check_widths(filters, 1)
        _check_size(image_shape, patch)
        (width,) = filters
        stem = nn.Sequential(nn.Conv2d(image_shape[0], width, patch, patch), nn.GELU(), nn.BatchNorm2d(width))
        body = nn.Sequential(*(_MixerBlock(width, kernel) for _ in range(blocks)))
        super().__init__(body, width, classes, stem=stem)


class _MixerBlock(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = _depthwise(width, kernel)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.bn1(F.gelu(self.depthwise(x)))
        mixed: Tensor = self.bn2(F.gelu(self.pointwise(x)))
        return mixed


class ConvNeXt(_ImageClassifier):
    """Blocks of a 7×7 depthwise convolution and an inverted bottleneck, layer-normalised (Liu et al. 2022).

    Args:
        filters: Channels of each stage; all but the first halve the image.
        blocks: Blocks in each stage.
        kernel: Size of the depthwise kernels.
        patch: Size and stride of the stem.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (48, 96),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        blocks: int = 2,
        kernel: int = 7,
        patch: int = 2,
    ) -> None:
        _check_size(image_shape, patch * 2 ** (len(filters) - 1))
        parts: list[nn.Module] = []
        width = image_shape[0]
        for stage, out in enumerate(filters):
            before = [_ChannelNorm(width)] if stage else []
            after = [] if stage else [_ChannelNorm(out)]
            size = 2 if stage else patch
            parts += [*before, nn.Conv2d(width, out, size, size), *after]
            parts += [_NextBlock(out, kernel) for _ in range(blocks)]
            width = out
        super().__init__(nn.Sequential(*parts), width, classes, norm=nn.LayerNorm(width))


class _ChannelNorm(nn.LayerNorm):
    """Normalises over the channels of ``(n, c, h, w)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _NextBlock(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = _depthwise(width, kernel)
        self.norm = _ChannelNorm(width)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.contract = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.contract(F.gelu(self.expand(self.norm(self.depthwise(x)))))
        return x + change


class MobileNet(_ImageClassifier):
    """Inverted residuals with depthwise convolutions and batch normalisation (Sandler et al. 2018).

    Args:
        filters: Channels of each stage; all but the first halve the image.
        blocks: Blocks in each stage.
        expansion: Factor on the channels inside a block.
        kernel: Size of the depthwise kernels.
        stride: Stride of the first convolution.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (16, 24, 48),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        blocks: int = 2,
        expansion: int = 4,
        kernel: int = 3,
        stride: int = 1,
    ) -> None:
        stem = nn.Sequential(*_conv_bn(image_shape[0], filters[0], 3, stride), nn.ReLU6())
        body = [_InvertedResidual(*sizes, expansion, kernel) for sizes in _blocks(filters, blocks)]
        wide = 4 * filters[-1]
        head = nn.Sequential(*_conv_bn(filters[-1], wide, 1), nn.ReLU6())
        super().__init__(nn.Sequential(*body), wide, classes, stem=stem, head=head)


class _InvertedResidual(nn.Module):
    def __init__(self, width: int, out: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        wide = expansion * width
        self.layers = nn.Sequential(
            *_conv_bn(width, wide, 1),
            nn.ReLU6(),
            *_conv_bn(wide, wide, kernel, stride, groups=wide),
            nn.ReLU6(),
            *_conv_bn(wide, out, 1),
        )
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class VGG(_ImageClassifier):
    """Pairs of 3×3 convolutions, each pair followed by max-pooling (Simonyan & Zisserman 2015).

    Args:
        filters: Channels of each pair.
        stride: Stride of the first convolution.
        norm: 1 for batch normalisation behind each convolution, which has no bias then; 0 for none.
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64, 128),
        classes: int = 10,
        image_shape: ImageShape = (3, 32, 32),
        stride: int = 1,
        norm: int = 0,
    ) -> None:
        _check_size(image_shape, stride * 2 ** len(filters))
        parts: list[nn.Module] = []
        width = image_shape[0]
        for out in filters:
            for first in (width, out):
                convolution = nn.Conv2d(first, out, 3, 1 if parts else stride, padding=1, bias=not norm)
                parts += [convolution, *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
            parts.append(nn.MaxPool2d(2))
            width = out
        super().__init__(nn.Sequential(*parts), width, classes)


def _blocks(filters: tuple[int, ...], blocks: int) -> Iterator[tuple[int, int, int]]:
    """Yields input channels, output channels and stride of each block; all stages but the first halve the image."""
    width = filters[0]
    for stage, out in enumerate(filters):
        for block in range(blocks):
            yield width, out, 2 if stage and not block else 1
            width = out


def _check_size(image_shape: ImageShape, factor: int) -> None:
    if min(image_shape[1:]) < factor:
        raise ValueError(
            f"the network reduces images by a factor of {factor}, so they must be {factor}×{factor} or larger; got "
            f"{tuple(image_shape)}"
        )


def _conv_bn(width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    padding = _padding(kernel)
    return nn.Conv2d(width, out, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(out)


def _depthwise(width: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, kernel, padding=_padding(kernel), groups=width)


def _padding(kernel: int) -> int:
    """Returns the padding with which a convolution keeps the size of images."""
    if kernel % 2 == 0:
        raise ValueError(f"kernels must have an odd size, so that images keep theirs; got {kernel}×{kernel}")
    return kernel // 2
