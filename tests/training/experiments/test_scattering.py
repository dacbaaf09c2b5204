import math
import sys

import pytest
import torch

from training.experiments.scattering import Scattering

pytest.importorskip("kymatio", reason="needs the rivals extra")


def pictures(n: int = 60) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_every_path_has_unit_strength_on_the_training_images() -> None:
    """1 + J L + L² J (J - 1) / 2 paths, in cells of 8 pixels; a batch counts as its parts do."""
    found = Scattering((28, 28), 3, 4).calibrate_(pictures())(pictures()).view(60, -1, 3, 3)
    assert found.shape[1] == 1 + 3 * 4 + 4**2 * 3
    torch.testing.assert_close(found.square().mean((0, 2, 3)), torch.ones(found.shape[1]))
    other = Scattering((28, 28), 3, 4)
    torch.testing.assert_close(other(pictures())[3], other(pictures()[3:4])[0])


def test_details_are_only_moduli() -> None:
    """A constant image has an average and no wavelet; a wave has one angle that answers, whatever its phase."""
    transform = Scattering((32, 32), 2, 4)
    flat = transform(torch.ones(1, 1, 32, 32)).view(-1, 8, 8)
    assert flat[0].mean() == pytest.approx(1, abs=1e-3) and flat[1:].abs().max() < 1e-3
    x = torch.arange(32.0)
    waves = torch.stack([(2 * math.pi * x / 4 + phase).cos().expand(1, 32, 32) for phase in (0.0, 1.0)])
    first, second = transform(waves).view(2, -1, 8, 8)[:, 1:9, 2:6, 2:6].mean((2, 3))
    torch.testing.assert_close(first, second, atol=0.05 * first.max().item(), rtol=0)
    assert first.max() > 3 * first.median()


def test_the_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kymatio.scattering2d.frontend.torch_frontend", None)
    with pytest.raises(ImportError, match=r"needs the library kymatio; pip install '\.\[rivals\]'"):
        Scattering((28, 28), 3, 8)
