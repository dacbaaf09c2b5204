from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dwp_init import apply_
from dwp_init.convolutions import he_rms
from training.kernels.kernelset import KernelSet
from training.networks.image_vae import ImageVAE
from training.networks.paper import CIFARNet, MNISTNet
from training.starts.fills import (
    DEFAULT,
    DWP,
    DWP_OWN,
    FROM_KERNELS,
    INITS,
    KAIMING,
    LEARNED,
    NOISE,
    NOISE_OWN,
    XAVIER,
    initialize_,
    learned_kernels,
)

PRIORS = ("notmnist-7x7", "notmnist-5x5")
KERNELS = {k: torch.randn(9, 1, k, k, generator=torch.Generator().manual_seed(k)) for k in (7, 5)}


def _made(kind: type[nn.Module], init: str, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    network = kind()
    initialize_(network, init, seed, PRIORS, KERNELS, **options)
    return network


def _rms(layer: nn.Module) -> float:
    return layer.weight.detach().square().mean().sqrt().item()


def _weights(network: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}


@pytest.mark.parametrize("kind", [MNISTNet, CIFARNet, ImageVAE])
@pytest.mark.parametrize("init", INITS)
def test_only_the_weights_of_convolutions_are_drawn_and_by_the_seed(kind: type[nn.Module], init: str) -> None:
    base, network, again = _made(kind, DEFAULT), _made(kind, init), _made(kind, init)
    convolutions = {f"{name}.weight" for name in _weights(base)}
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, base.state_dict()[name]) == (init == DEFAULT or name not in convolutions)


@pytest.mark.parametrize("kind", [CIFARNet, ImageVAE])
def test_scales(kind: type[nn.Module]) -> None:
    """Exact for dwp, sampled for noise; in the transposed layers too, where torch's own Kaiming has another."""
    made = {init: _weights(_made(kind, init)) for init in (DWP, DWP_OWN, NOISE, NOISE_OWN, LEARNED, KAIMING)}
    for name, layer in made[DWP].items():
        assert _rms(layer) == pytest.approx(he_rms(layer), rel=1e-4)
        assert _rms(made[LEARNED][name]) == pytest.approx(he_rms(layer), rel=1e-4)
        assert _rms(made[NOISE][name]) == pytest.approx(he_rms(layer), rel=0.05)
        assert _rms(made[NOISE_OWN][name]) == pytest.approx(_rms(made[DWP_OWN][name]), rel=0.05)
        expected = he_rms(layer) if isinstance(layer, nn.Conv2d) else (2 / layer.weight[0].numel()) ** 0.5
        assert _rms(made[KAIMING][name]) == pytest.approx(expected, rel=0.05)


def test_dwp_is_what_apply_draws() -> None:
    for init, scale in {DWP: "fan_in", DWP_OWN: "prior"}.items():
        torch.manual_seed(3)
        expected = MNISTNet()
        apply_(expected, list(PRIORS), scale=scale, seed=3)
        found = _made(MNISTNet, init, seed=3)
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("init", [DWP, XAVIER, LEARNED])
def test_layers_narrow_the_choice(init: str) -> None:
    base, network = _made(ImageVAE, DEFAULT), _made(ImageVAE, init, layers=("encoder.*",))
    for name, layer in _weights(network).items():
        assert torch.equal(layer.weight, _weights(base)[name].weight) == name.startswith("decoder")


def _stage(folder: Path, kernels: Tensor) -> Path:
    folder.mkdir()
    KernelSet(kernels, kernels.clone(), kernels.clone(), torch.zeros(len(kernels))).save(folder)
    return folder


def test_learned_kernels_by_size(tmp_path: Path) -> None:
    found = learned_kernels(_stage(tmp_path / f"kernels_{k}", kernels) for k, kernels in KERNELS.items())
    assert found.keys() == {7, 5} and all(torch.equal(found[k], KERNELS[k]) for k in found)
    with pytest.raises(ValueError, match="kernels_5 is the second stage with 5×5 kernels; name one for each size"):
        learned_kernels([tmp_path / "kernels_5"] * 2)
    joint = _stage(tmp_path / "joint", torch.zeros(9, 3, 5, 5))
    with pytest.raises(ValueError, match=r"joint holds kernels of 3 channels; .* of 1 channel"):
        learned_kernels([joint])


@pytest.mark.parametrize(
    ("init", "settings", "message"),
    [
        ("He", {}, "inits must be some of PyTorch default; .*; got He"),
        (DWP, {"priors": ()}, "dwp cannot be drawn from nothing: name priors=, or leave"),
        (NOISE_OWN, {"priors": ()}, "white noise, prior's scale cannot be drawn from nothing: name priors="),
        (LEARNED, {"kernels": {}}, "learned kernels, He's RMS cannot be drawn from nothing: name kernels stages"),
        (LEARNED, {"kernels": {7: KERNELS[7]}}, r"features.conv2 has 5×5 kernels, and the learned ones are 7×7: name"),
        (XAVIER, {"layers": ("conv",)}, r"layers=\('conv',\) match no convolution; there are features.conv1, features"),
        (DWP, {"priors": PRIORS[:1]}, "strict: "),
    ],
)
def test_helpful_errors(init: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initialize_(MNISTNet(), init, 0, **{"priors": PRIORS, "kernels": KERNELS} | settings)
    assert set(FROM_KERNELS) < set(INITS)
