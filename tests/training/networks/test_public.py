import pytest
import torch
from torch import Tensor, nn

from training.networks.public import EDSR, LOSSES, build_public, pink_images


def test_images_have_the_spectrum_of_photographs_and_alike_channels() -> None:
    images = pink_images(64, 32, 0)
    power = torch.fft.fft2(images).abs().square().mean((0, 1))
    assert (power[0, 2] / power[0, 8]).item() == pytest.approx(16, rel=0.2)  # 1/f²
    assert images.mean().abs() < 1e-5 and images.square().mean().item() == pytest.approx(1, abs=0.01)
    channels = torch.corrcoef(images.transpose(0, 1).flatten(1))
    assert channels[0, 1].item() == pytest.approx(0.9, abs=0.03)
    assert torch.equal(images, pink_images(64, 32, 0)) and not torch.equal(images[:1], pink_images(1, 32, 1))


def test_edsr_has_the_parameters_of_the_paper() -> None:
    """Lim et al. (2017), the baseline of 16 blocks for images of twice the size: 1.37 million."""
    network = EDSR(16)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_369_859
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:test_convnext", "edsr:1"])
def test_models_are_untrained_in_evaluation_mode_and_the_same_for_a_seed(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    first, again, other = (build_public(name, seed, 64) for seed in (0, 0, 1))
    assert not first.network.training
    images = pink_images(1, first.size, 0)
    with torch.no_grad():
        outputs = [public.run(images) for public in (first, again, other)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_a_detectors_losses_are_those_of_training() -> None:
    public = build_public(f"{LOSSES}ssdlite320_mobilenet_v3_large", 0, 64)
    assert public.network.training and isinstance(public.network, nn.Module)
    before = torch.get_rng_state()
    losses = public.run(pink_images(2, 64, 0))
    assert all(isinstance(loss, Tensor) and loss > 0 for loss in losses.values())
    assert set(losses) == {"bbox_regression", "classification"} and torch.equal(torch.get_rng_state(), before)
