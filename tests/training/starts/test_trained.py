from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dwp_init.convolutions import find_layers
from dwp_init.resample import Fitting
from tests.training.starts.conftest import master_filters as written_filters
from training.starts.base import kind_of, spatial_convolutions
from training.starts.trained import MASTER_FILTERS, TRAINED_NETWORK, master_filters

Make = Callable[..., nn.Module]


def test_the_file_holds_eight_filters(folder: Path) -> None:
    torch.testing.assert_close(master_filters(folder / "others" / "master_filters.txt"), written_filters())


@pytest.mark.parametrize(("network", "k"), [("convnext", 7), ("mobilenet", 3)])
def test_depthwise_kernels_are_a_filter_or_its_opposite(network: str, k: int, make: Make) -> None:
    own, made = make(network, "own"), make(network, MASTER_FILTERS)
    filters = written_filters() if k == 7 else Fitting((7, 7), (k, k))(written_filters())
    taken: set[tuple[int, bool]] = set()
    for name, layer in spatial_convolutions(made).items():
        if kind_of(layer) == "dense":
            assert torch.equal(layer.weight, own.get_submodule(name).weight)
            continue
        cosines = F.cosine_similarity(layer.weight.flatten(1)[:, None], filters.flatten(1), dim=2)
        best, which = cosines.abs().max(1)
        torch.testing.assert_close(best, torch.ones_like(best))
        signs = cosines.gather(1, which[:, None])[:, 0] > 0
        taken |= set(zip(which.tolist(), signs.tolist(), strict=True))
    assert len({which for which, _ in taken}) > 4 and {sign for _, sign in taken} == {True, False}
    depthwise = sum(layer.weight.numel() for layer in spatial_convolutions(made).values() if kind_of(layer) != "dense")
    assert made.drawn == depthwise / sum(layer.weight.numel() for layer in spatial_convolutions(made).values())
    for ours, theirs in zip(*(find_layers(each, lambda named: True) for each in (made, own)), strict=True):
        if ours.is_spatial:
            found, before = (layer.measure(layer.weight.read()).response for layer in (ours, theirs))
            assert found == pytest.approx(before, rel=1e-4)


def test_kernels_of_a_trained_network_stand_in_place_in_order_of_their_numbers(make: Make) -> None:
    """The file's names sort otherwise by letters: ``layer10`` stands before ``layer8``."""
    made = make("resnet", TRAINED_NETWORK)
    assert [layer.weight.unique().item() for layer in spatial_convolutions(made).values()] == [1, 2, 3, 4, 5]
    assert made.drawn == 1


def test_another_architecture_is_refused_with_both_named(make: Make) -> None:
    message = "with 5 spatial .*, 4×3×3×3, 4×4×3×3 … 8×8×3×3; the network has 3 .*, 6×3×7×7, 8×6×5×5 … 8×8×5×5: take "
    with pytest.raises(ValueError, match=message):
        make("cifar", TRAINED_NETWORK)
    with pytest.raises(ValueError, match=r"the network has .* transposed.*, or leave this start out"):
        make("vae", TRAINED_NETWORK)
