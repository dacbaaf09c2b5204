"""The networks of Appendix H.1 against the modules as the paper prints them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.priors.paper_networks import InPlaceELU, paper_networks

PRINTED = {
    (7, "encoder"): lambda: [nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 2, 1)],
    (7, "decoder"): lambda: [
        nn.ConvTranspose2d(2, 64, 3),
        nn.ConvTranspose2d(64, 64, 3),
        nn.ConvTranspose2d(64, 32, 3),
        nn.Conv2d(32, 1, 1),
    ],
    (5, "encoder"): lambda: [
        nn.Conv2d(1, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 4, 1),
    ],
    (5, "decoder"): lambda: [
        nn.Conv2d(4, 128, 1),
        nn.ConvTranspose2d(128, 128, 3),
        nn.ConvTranspose2d(128, 128, 3),
        nn.Conv2d(128, 64, 1),
        nn.Conv2d(64, 1, 1),
    ],
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


class Printed(nn.Module):
    """One part of a VAE from plain modules, under the names of the appendix."""

    def __init__(self, size: int, part: str) -> None:
        super().__init__()
        *layers, head = PRINTED[size, part]()
        self.body = nn.Sequential(*(module for layer in layers for module in (layer, nn.ELU())))
        self.fc_mu, self.fc_var = head, nn.Conv2d(head.in_channels, head.out_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.fc_mu(hidden).flatten(1), self.fc_var(hidden).flatten(1)


def both(size: int, part: str, like: Tensor) -> tuple[nn.Module, nn.Module]:
    """Returns a network of the package and the printed one with the same parameters, biases well away from 0."""
    torch.manual_seed(0)
    ours = paper_networks((1, size, size), 2 if size == 7 else 4)[part == "decoder"]
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    printed = Printed(size, part)
    printed.load_state_dict(ours.state_dict())
    return ours.to(like), printed.to(like)


def run(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Returns the two outputs and, behind them, the gradients of a function of both in every parameter and in ``x``."""
    x = x.clone().requires_grad_()
    outputs = network(x)
    loss = sum((weight * output.sin()).sum() for weight, output in enumerate(outputs, start=1))
    return [*outputs, *torch.autograd.grad(loss, [*network.parameters(), x])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 13])
@pytest.mark.parametrize(("size", "part"), PRINTED)
def test_values_and_gradients_are_those_of_the_printed_modules(
    size: int, part: str, n: int, dtype: torch.dtype, device: str
) -> None:
    channels, side = (1, size) if part == "encoder" else (2 if size == 7 else 4, 1)
    x = 2 * torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))
    x = x.to(device, dtype)
    ours, printed = both(size, part, x)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    found, expected = run(ours, x), run(printed, x)
    for value, truth in zip(found, expected, strict=True):
        scale = truth.abs().max().item() if truth.any() else 1
        torch.testing.assert_close(value / scale, truth / scale, **tolerance)
    with torch.no_grad():
        assert all(map(torch.equal, ours(x.flatten(1)), found[:2]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    ours, _ = both(5, "decoder", x)
    expected = ours(x)
    for value, truth in zip(ours.to(dtype)(x.to(dtype)), expected, strict=True):
        assert value.dtype == dtype
        torch.testing.assert_close(value.float(), truth, rtol=0, atol=0.05)


SPECIAL = [0.0, -0.0, 1e-30, -1e-5, -88.0, -104.0, -200.0, 3e38, -3e38, float("inf"), float("-inf")]


def test_elu_with_its_first_and_second_derivative() -> None:
    x = torch.cat([torch.tensor(SPECIAL), torch.linspace(-20, 20, 4001)])
    found, expected = [], []
    for function, results in ((InPlaceELU(), found), (F.elu, expected)):
        at = x.clone().requires_grad_()
        results.append(function(at * 1))
        results += torch.autograd.grad(results[0].sum(), at, create_graph=True)
        results += torch.autograd.grad(results[1].sum(), at)
    for value, truth in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(value, truth, rtol=1e-6, atol=2e-7)
    smooth = x != 0  # there is no second derivative at 0
    torch.testing.assert_close(found[2][smooth], expected[2][smooth], rtol=1e-6, atol=2e-7)
    assert InPlaceELU()(torch.tensor([torch.nan])).isnan()
