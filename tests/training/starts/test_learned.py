from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.kernels.kernelset import KernelSet
from training.starts.base import Learned, initialize_, spatial_convolutions
from training.starts.learned import GAUSSIAN, LEARNED, LEARNED_OWN, learned_kernels


def _stage(folder: Path, kernels: Tensor) -> Path:
    folder.mkdir()
    KernelSet(kernels, kernels.clone(), kernels.clone(), torch.zeros(len(kernels))).save(folder)
    return folder


def test_learned_kernels_of_stages_by_size(tmp_path: Path) -> None:
    sets = {k: torch.randn(9, 1, k, k) for k in (7, 5)}
    folders = [_stage(tmp_path / f"kernels_{k}", kernels) for k, kernels in sets.items()]
    found = learned_kernels(folders)
    assert found.keys() == {("dense", 7), ("dense", 5)} and torch.equal(found["dense", 5][0.0], sets[5])
    with pytest.raises(ValueError, match="kernels_5 is the second stage with 5×5 kernels; name one for each size"):
        learned_kernels([folders[1]] * 2)
    joint = _stage(tmp_path / "joint", torch.zeros(9, 3, 5, 5))
    with pytest.raises(ValueError, match=r"joint holds kernels of 3 channels; .* of 1 channel"):
        learned_kernels([joint])


def test_they_are_of_the_kind_size_and_nearest_depth() -> None:
    """Each set is one pattern, so that a drawn kernel tells which it is from."""
    patterns = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    first, middle, last, depthwise = (pattern.view(1, 1, 3, 3).expand(5, 1, 3, 3) for pattern in patterns)
    learned: Learned = {("dense", 3): {0.0: first, 0.45: middle, 1.0: last}, ("depthwise", 3): {0.0: depthwise}}
    layers = [nn.Conv2d(*shape) for shape in ((3, 4, 3), (4, 4, 1), (4, 4, 3), (4, 4, 3))]
    network = nn.Sequential(*layers, nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    untouched = network[1].weight.clone()
    initialize_(network, LEARNED, 0, learned=learned)
    assert torch.equal(network[1].weight, untouched)
    for place, pattern in {0: 0, 2: 1, 3: 1, 4: 3, 5: 2}.items():  # depths 0, ¼, ½, ¾ and 1
        kernels = network[place].weight.detach().reshape(-1, 9)
        assert (F.cosine_similarity(kernels, patterns[pattern].expand_as(kernels)) > 0.999).all()


def test_kernels_of_their_own_scale_are_those_of_the_set(make: Callable[..., nn.Module], learned: Learned) -> None:
    for layer in spatial_convolutions(make("vae", LEARNED_OWN)).values():
        k = layer.kernel_size[0]
        known = torch.cat(list(learned["dense", k].values())).reshape(-1, k * k)
        assert all((known == kernel).all(1).any() for kernel in layer.weight.detach().reshape(-1, k * k))


def test_the_empirical_gaussian_has_the_kernels_covariance() -> None:
    kernels = torch.randn(500, 1, 3, 3, generator=torch.Generator().manual_seed(0)).cumsum(-1) + 1
    layer = nn.Sequential(nn.Conv2d(100, 100, 3))
    initialize_(layer, GAUSSIAN, 0, learned={("dense", 3): {0.5: kernels}})
    drawn = layer[0].weight.detach().reshape(-1, 9)
    moments = [(x.T @ x / len(x)) / x.square().mean() for x in (drawn, kernels.flatten(1))]
    torch.testing.assert_close(*moments, atol=0.1, rtol=0.05)


def test_helpful_errors(make: Callable[..., nn.Module], learned: Learned) -> None:
    dense = {("dense", 7): learned["dense", 7]}
    with pytest.raises(ValueError, match="has dense 2×2, depthwise 7×7 kernels, the learned ones are dense 7×7"):
        make("convmixer", LEARNED, learned=dense)
    with pytest.raises(ValueError, match=r"nothing to draw from for features.conv2 \(dense 5×5\)"):
        make("mnist", LEARNED, learned=dense, strict=True)
