import pytest
import torch
from torch import nn

from training.networks.modern import VGG, ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.plain import AllCNN, NetworkInNetwork, SpeedNet, TutorialNet
from training.networks.registry import NETWORKS, build

SMALL = {
    "mnist": (2, 3),
    "cifar": (2, 3, 4),
    "cifar-source": (2, 3, 4, 5),
    "resnet": (2, 4),
    "resnet-7x7-stem": (2, 4, 6),
    "convmixer": (5,),
    "convnext": (4, 6),
    "mobilenet": (2, 3, 4),
    "vgg": (8, 8, 8, 8),
    "allcnn": (8, 8),
    "nin": (4, 5, 6),
    "speed": (3, 4, 5),
    "tutorial": (3, 4),
}
IMAGENET = (3, 224, 224)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: ResNet((16, 32, 64)), 272_474),  # 269,722 of ResNet-20, and two projections of 2,752 in all
        (lambda: build("resnet-7x7-stem", (32, 64, 128), 10, (3, 32, 32)), 312_490),
        (lambda: ConvMixer((768,), 1000, IMAGENET, blocks=32, patch=7), 21_110_248),  # 21.1 million in the paper
        (lambda: ConvMixer((1536,), 1000, IMAGENET, blocks=20, kernel=9, patch=7), 51_625_960),  # 51.6 million
        (ConvNeXt, 221_242),
        (MobileNet, 56_442),
        (VGG, 288_298),
        (AllCNN, 1_369_738),
        (lambda: AllCNN(norm=1), 1_369_738 + 3 * 96 + 5 * 192),  # two numbers of each channel instead of a bias
        # three spatial convolutions, six of 1×1, and ten classes
        (NetworkInNetwork, 192 * (75 + 1 + 2 * (192 * 9 + 1) + 6 * (192 + 1)) + 10 * (192 + 1)),
        (TutorialNet, 6 * 76 + 16 * 151 + 120 * 401 + 84 * 121 + 10 * 85),
        (SpeedNet, 1_972_792),  # airbench94, with the constant scales of its normalisation
    ],
)
def test_parameter_counts(network: type[nn.Module], parameters: int) -> None:
    """Of the papers where they have such a network, else added up by hand."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == parameters


def test_every_network_is_tried() -> None:
    assert SMALL.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("classes", "shape"), [(7, (1, 32, 32)), (2, (3, 45, 45)), (11, (4, 64, 64))])
def test_classes_and_sizes(name: str, classes: int, shape: tuple[int, int, int]) -> None:
    """Logits of any number of classes, each image's from it alone; what is learned is all used."""
    torch.manual_seed(0)
    network = build(name, SMALL[name], classes, shape)
    images = torch.rand(3, *shape)
    logits = network(images)
    assert logits.shape == (3, classes)
    logits.square().sum().backward()
    learned = {key: value for key, value in network.named_parameters() if value.requires_grad}
    assert [key for key, value in learned.items() if value.grad is None or not value.grad.any()] == []
    network.eval()
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("resnet", "stem.0", (2, 3, 3, 3)),
        ("resnet", "body.5.conv2", (4, 4, 3, 3)),
        ("resnet-7x7-stem", "stem.0", (2, 3, 7, 7)),
        ("resnet-7x7-stem", "body.2.conv1", (6, 4, 3, 3)),
        ("cifar-source", "features.conv1", (2, 3, 7, 7)),
        ("cifar-source", "features.conv4", (5, 4, 5, 5)),
        ("convmixer", "body.7.depthwise", (5, 1, 7, 7)),
        ("convnext", "body.7.depthwise", (6, 1, 7, 7)),
        ("mobilenet", "body.5.layers.3", (16, 1, 3, 3)),
        ("mobilenet(kernel=5)", "body.5.layers.3", (16, 1, 5, 5)),
        ("convmixer(kernel=9, blocks=2)", "body.1.depthwise", (5, 1, 9, 9)),
        ("convnext(kernel=5, blocks=1)", "body.5.depthwise", (6, 1, 5, 5)),
        ("allcnn", "body.12", (8, 8, 3, 3)),
        ("allcnn(norm=1)", "body.21", (8, 8, 1, 1)),
        ("nin", "body.7", (5, 4, 3, 3)),
        ("nin", "body.11", (5, 5, 1, 1)),
        ("nin", "body.20", (10, 6, 1, 1)),
        ("speed", "stem.0", (24, 3, 2, 2)),
        ("speed(stem=3)", "stem.0", (54, 3, 3, 3)),
        ("speed", "body.2.conv2", (5, 5, 3, 3)),
        ("tutorial", "conv2", (4, 3, 5, 5)),
    ],
)
def test_layers_that_kernels_are_taken_of(name: str, layer: str, shape: tuple[int, ...]) -> None:
    network = build(name, SMALL[name.partition("(")[0]], 10, (3, 32, 32))
    assert network.get_submodule(layer).weight.shape == shape


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet", 16),
        ("resnet(stride=2)", 8),
        ("resnet-7x7-stem", 8),
        ("convmixer", 16),
        ("convmixer(patch=4)", 8),
        ("convnext", 8),
        ("convnext(patch=4)", 4),
        ("mobilenet", 8),
        ("mobilenet(stride=2, kernel=5)", 4),
        ("vgg", 2),
        ("vgg(stride=2)", 1),
        ("vgg(norm=1)", 2),
        ("allcnn", 6),
        ("allcnn(norm=1)", 6),
        ("nin", 8),
        ("nin(stride=2)", 4),
        ("speed", 3),
    ],
)
def test_stages_halve_the_image(name: str, size: int) -> None:
    called = name.partition("(")[0]
    network = build(name, SMALL[called], 10, (3, 32, 32))
    before = network.stem if called not in ("convnext", "vgg", "allcnn", "nin") else nn.Identity()
    assert network.body(before(torch.rand(1, 3, 32, 32))).shape[2:] == (size, size)


@pytest.mark.parametrize(
    ("name", "block", "branch"),
    [("resnet", "body.1", "bn2"), ("mobilenet", "body.1", "layers.7"), ("convnext", "body.2", "contract")],
)
def test_a_block_whose_branch_is_silent_passes_on_what_it_gets(name: str, block: str, branch: str) -> None:
    module = build(name, SMALL[name], 10, (3, 32, 32)).get_submodule(block)
    for parameter in module.get_submodule(branch).parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, SMALL[name][0], 8, 8)
    assert torch.equal(module(x), x)


def test_a_mixer_block_passes_on_what_the_depthwise_branch_gets() -> None:
    """With a silent branch and the identity as pointwise convolution, what is left is normalised gelu(x)."""
    block = build("convmixer", (5,), 10, (3, 32, 32)).body[0].eval()
    nn.init.zeros_(block.bn1.weight)
    nn.init.dirac_(block.pointwise.weight)
    nn.init.zeros_(block.pointwise.bias)
    x = torch.rand(2, 5, 8, 8)
    torch.testing.assert_close(block(x), nn.functional.gelu(x) / (1 + 1e-5) ** 0.5)


def test_convnext_normalises_over_channels() -> None:
    norm = build("convnext", (48, 96), 10, (3, 32, 32)).body[1]
    x = 3 + 2 * torch.randn(2, 48, 4, 5)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    ("name", "filters", "shape", "message"),
    [
        ("mnist", (2, 3, 4), (1, 28, 28), r"filters of length 2; got \(2, 3, 4\)"),
        ("cifar", (2, 3), (3, 32, 32), r"filters of length 3; got \(2, 3\)"),
        ("cifar-source", (2, 3, 4, 5, 6), (3, 32, 32), "filters of length 4"),
        ("convmixer", (2, 3), (3, 32, 32), "filters of length 1"),
        ("cifar", (2, 3, 4), (3, 23, 23), r"size 24 or more; got \(3, 23, 23\)"),
        ("cifar-source", (2, 3, 4, 5), (3, 32, 40), r"size 32 or more; got \(3, 32, 40\)"),
        (
            "vgg",
            (2, 3, 4, 5),
            (3, 15, 15),
            r"reduces images by a factor of 16, so they must be 16×16 or larger; got \(3, 15, 15\)",
        ),
        ("vgg(stride=2)", (2, 3, 4, 5), (3, 31, 31), "by a factor of 32, so they must be 32×32"),
        ("convnext", (2, 3), (3, 32, 3), "by a factor of 4, so they must be 4×4 or larger"),
        ("convnext(patch=4)", (2, 3), (3, 32, 7), "by a factor of 8"),
        ("convmixer(patch=4)", (2,), (3, 32, 3), "by a factor of 4"),
        ("allcnn", (2, 3, 4), (3, 32, 32), "filters of length 2"),
        ("allcnn", (2, 3), (3, 8, 9), r"must be 9×9 or larger; got \(3, 8, 9\)"),
        ("nin(stride=2)", (2, 3), (3, 32, 3), r"1 times behind a stride of 2, .* be 4×4 or larger; got \(3, 32, 3\)"),
        ("speed", (2, 3), (3, 32, 4), r"a 2×2 stem and halves images 2 times, .* be 5×5 or larger; got \(3, 32, 4\)"),
        ("mobilenet(kernel=4)", (2,), (3, 32, 32), "odd size, so that images keep theirs; got 4×4"),
        ("convmixer(kernel=4)", (2,), (3, 32, 32), "odd size"),
    ],
)
def test_unsuitable_filters_and_images(
    name: str, filters: tuple[int, ...], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, filters, 10, shape)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mnist", 18),
        ("cifar", 24),
        ("cifar-source", 32),
        ("vgg", 16),
        ("convnext", 4),
        ("resnet", 1),
        ("allcnn", 9),
        ("nin", 4),
        ("speed", 9),
        ("tutorial", 16),
    ],
)
def test_the_smallest_images(name: str, size: int) -> None:
    network = build(name, SMALL[name], 10, (3, size, size))
    assert network(torch.rand(2, 3, size, size)).shape == (2, 10)


def test_the_speed_network_classifies_the_maximum_over_positions() -> None:
    network = build("speed", (3, 4, 5), 10, (3, 32, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    features = network.body(network.stem(images)).flatten(2).max(2).values
    torch.testing.assert_close(network(images), features @ network.classifier.weight.T / 9)
    assert [key for key, value in network.named_parameters() if not value.requires_grad] == [
        f"body.{group}.bn{number}.weight" for group in range(3) for number in (1, 2)
    ]
