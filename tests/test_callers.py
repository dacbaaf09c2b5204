import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, apply_

PRIOR = Gaussian((1, 3, 3)).fit_(torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
MESSAGE = "calls apply_ for each layer alone, so each counts as a first layer, of depth 0"


def block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))


def draw(module: nn.Module, name: str = "") -> None:
    if isinstance(module, nn.Conv2d):
        apply_(module, PRIOR, scale="fan_in", seed=0)


def by_lambda(model: nn.Module) -> None:
    model.apply(lambda module: draw(module))


def by_named_apply(model: nn.Module) -> None:
    pytest.importorskip("timm.models").named_apply(draw, model)


def by_method(model: nn.Module) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model
            self.apply(self._init_weights)

        def _init_weights(self, module: nn.Module) -> None:
            draw(module)

    Network()


@pytest.mark.parametrize(
    ("walk", "name"), [(by_lambda, "apply"), (by_method, "apply"), (by_named_apply, "named_apply")]
)
def test_a_call_for_each_layer_is_warned_of(walk: Callable[[nn.Module], None], name: str) -> None:
    model = block()
    with pytest.warns(UserWarning, match=f"{name} {MESSAGE}") as found:
        walk(model)
    assert len(found) == 2 and {each.filename for each in found} == {__file__}
    assert torch.equal(model[0].weight, model[1][1].weight)  # which is what the warning is about
    with warnings.catch_warnings(), pytest.raises(UserWarning, match=r"once with the whole model, or dwp_init\.init"):
        warnings.simplefilter("error")
        walk(model)


def wrapped(model: nn.Module) -> None:
    """Initialises the body of a network, with a function that is called for each of its modules."""
    body = nn.Sequential(model, nn.Linear(2, 2))
    body.apply(lambda module: apply_(module, PRIOR) if module is model else None)


@pytest.mark.parametrize(
    "call",
    [
        lambda: apply_(nn.Conv2d(4, 4, 3), PRIOR),
        lambda: draw(nn.Conv2d(4, 4, 3)),
        lambda: nn.Conv2d(4, 4, 3).apply(draw),
        lambda: [draw(module) for module in block().modules()],
        lambda: wrapped(block()),
    ],
)
def test_other_calls_are_not(call: Callable[[], object]) -> None:
    call()  # warnings are errors
