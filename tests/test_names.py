"""Names without what wrappers add to them."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dwp_init import apply_
from dwp_init.names import Named, matches, named_modules
from tests.models import Fit


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3)))


def inner(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = network()
    model[1] = wrap(model[1])
    return model


class Wrapper(nn.Module):
    """Names its module as FSDP does, or checkpointing."""

    def __init__(self, module: nn.Module, part: str) -> None:
        super().__init__()
        setattr(self, part, module)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "nothing": lambda model: model,
    "compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "checkpoint": lambda model: Wrapper(model, "_checkpoint_wrapped_module"),
    "FSDP": lambda model: Wrapper(model, "_fsdp_wrapped_module"),
    "two": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("place", [lambda wrap: wrap(network()), inner], ids=["outer", "inner"])
def test_wrappers_change_no_name(
    wrap: Callable[[nn.Module], nn.Module], place: Callable[[Callable[[nn.Module], nn.Module]], nn.Module]
) -> None:
    model = place(wrap)
    found = list(named_modules(model))
    assert [named.name for named in found] == ["", "0", "1", "1.0", "1.1"]
    assert [model.get_submodule(named.path) for named in found] == [named.module for named in found]


def test_a_users_own_attribute_called_module_stays() -> None:
    model = nn.Module()
    model.module = nn.ReLU()
    assert [named.name for named in named_modules(model)] == ["", "module"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer1.*", True),
        ("_orig_mod.layer1.0", True),
        ("*.0", True),
        ("", False),
        ("layer2*", False),
        ("LAYER1.0", False),
    ],
)
def test_patterns_may_spell_the_wrapper_or_not(pattern: str, expected: bool) -> None:
    assert Named("layer1.0", "_orig_mod.layer1.0", nn.ReLU()).matches(pattern) == expected
    assert matches(pattern, "layer1.0") == (expected and "_" not in pattern)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda model: nn.DataParallel(torch.compile(model))])
def test_wrappers_change_neither_patterns_nor_draws(wrap: Callable[[nn.Module], nn.Module], gaussian: Fit) -> None:
    bare, paths = network(), []
    wrapped = wrap(copy.deepcopy(bare))
    apply_(bare, gaussian(3), seed=0, scale="fan_in")
    long = next(named.path for named in named_modules(wrapped) if named.name == "1.1")
    for layers in (None, ["0", "1.*"], ["*0", long]):
        report = apply_(wrapped, {"0": gaussian(3), long: gaussian(3)}, seed=0, scale="fan_in", layers=layers)
        assert report.initialized == list(report.spatial) == ["0", "1.1"]
        assert all(map(torch.equal, bare.parameters(), wrapped.parameters()))
    apply_(wrapped, gaussian(3), layers=lambda name, module: paths.append(name) or True)
    assert set(paths) == {"0", "1.1"}
    nn.init.zeros_(wrapped.get_submodule(long).weight)
    assert apply_(wrapped, gaussian(3)).initialized == ["0"]
    assert apply_(wrapped, gaussian(3), layers=["0", long]).initialized == ["0", "1.1"]


def test_a_traced_module_has_no_sizes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        traced = torch.jit.trace(nn.Sequential(nn.Conv2d(1, 4, 3)), torch.zeros(1, 1, 8, 8))
    for model, name in ((traced, "the model"), (nn.Sequential(traced), "0")):
        with pytest.raises(ValueError, match=f"^{name} is a TopLevelTracedModule: .* before it is traced"):
            apply_(model, "notmnist-7x7")
