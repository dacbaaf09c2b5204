import pytest
import torch

from training.networks.paper import CIFARNet, CIFARSource, MNISTNet


@pytest.mark.parametrize(
    ("network", "shape", "classes", "parameters"),
    [
        (MNISTNet((256, 512)), (2, 1, 28, 28), 10, 3_336_202),
        (MNISTNet(), (2, 1, 28, 28), 10, 115_658),
        (CIFARNet(), (2, 3, 32, 32), 10, 5_759_498),
        (CIFARSource(), (2, 3, 32, 32), 100, 6_071_652),
    ],
)
def test_networks_of_appendix_h(
    network: torch.nn.Module, shape: tuple[int, ...], classes: int, parameters: int
) -> None:
    """Counts of Table 3 and of the source networks."""
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(shape)).shape == (2, classes)


@pytest.mark.parametrize("normalised", [False, True])
def test_other_images_for_the_cifar_networks(normalised: bool) -> None:
    """39×39 images are 33 after the 7×7 convolution, 16 after pooling, and 4 less after each 5×5 convolution."""
    filters = (2, 3, 4, 5) if normalised else (2, 3, 4)
    network = (CIFARSource if normalised else CIFARNet)(filters, 7, (1, 39, 39))
    size = 4 if normalised else 8
    assert network.classifier.fc1.in_features == filters[-1] * size**2
    assert network(torch.zeros(2, 1, 39, 39)).shape == (2, 7)


def test_only_the_source_network_is_normalised() -> None:
    for network, expected in ((CIFARNet(), 0), (CIFARSource(), 5), (MNISTNet(), 0)):
        assert sum("BatchNorm" in type(module).__name__ for module in network.modules()) == expected
