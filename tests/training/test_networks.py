import pytest
import torch

from training.networks import CIFARNet, MNISTNet


@pytest.mark.parametrize(
    ("network", "shape", "parameters"),
    [
        (MNISTNet((256, 512)), (2, 1, 28, 28), 3_336_202),
        (MNISTNet(), (2, 1, 28, 28), 115_658),
        (CIFARNet(), (2, 3, 32, 32), 5_759_498),
    ],
)
def test_networks_of_appendix_h(network: torch.nn.Module, shape: tuple[int, ...], parameters: int) -> None:
    """Counts of Table 3 and of the source network."""
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(shape)).shape == (2, 10)
