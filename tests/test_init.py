"""`init.kernels_`: the draws of `apply_`, for one tensor."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dwp_init import SETS, PriorSet, apply_, init, load_prior, rules
from dwp_init.init import kernels_
from tests.models import Fit, responses, rms


def source(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def between(layer: nn.Module) -> nn.Sequential:
    """A network in which a layer has the depth 0.5."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Conv2d(8, 8, 3))


def usage(layer: nn.Module) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("groups", "transposed", "stride", "dilation")}


DEEP: list[tuple[Callable[[], nn.Module], str, dict[str, Any]]] = [
    (lambda: nn.Conv2d(8, 12, 3), "natural", {}),
    (lambda: nn.Conv2d(8, 12, 3), "tinyimagenet-3x3", {}),
    (lambda: nn.Conv2d(8, 12, 5, dilation=2), "natural", {}),
    (lambda: nn.Conv2d(8, 8, 7, groups=8), "natural", {}),
    (lambda: nn.Conv2d(8, 12, 3, groups=2, dtype=torch.bfloat16), "natural", {}),
    (lambda: nn.Conv2d(8, 12, 3).to(memory_format=torch.channels_last), "natural", {}),
    (lambda: nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4), "natural", {}),
    (lambda: nn.Conv2d(8, 12, 4), "natural", {"resize": True}),
    (lambda: nn.Conv2d(8, 12, 3), "natural", {"scale": "keep", "orthogonal": False}),
    (lambda: nn.Conv2d(8, 12, 7), "notmnist-7x7", {"scale": "prior", "orthogonal": True}),
    (lambda: nn.Conv2d(8, 12, 5), "notmnist-5x5-vae", {"noise": False}),
]


@pytest.mark.parametrize(("make", "prior", "options"), DEEP)
def test_the_draws_are_those_of_apply(make: Callable[[], nn.Module], prior: str, options: dict[str, Any]) -> None:
    layer = make()
    weight = layer.weight.detach().clone()
    apply_(between(layer), prior, layers="1", generator=source(), **{"scale": "fan_in", **options})
    assert kernels_(weight, prior, depth=0.5, generator=source(), **usage(layer), **options) is weight
    assert torch.equal(weight, layer.weight) and weight.stride() == layer.weight.stride()


def test_autocast_has_no_effect() -> None:
    weights = [kernels_(torch.empty(8, 8, 3, 3), "natural", generator=source())]
    with torch.autocast("cpu", torch.bfloat16):
        weights.append(kernels_(torch.empty(8, 8, 3, 3), "natural", generator=source()))
    assert torch.equal(*weights)


def test_at_depth_0_a_layer_of_one_group_is_a_stem() -> None:
    stem, weight = nn.Conv2d(3, 8, 7), torch.empty(8, 3, 7, 7)
    apply_(stem, "natural", generator=source(), scale="fan_in")
    assert torch.equal(kernels_(weight, "natural", depth=0, generator=source()), stem.weight)
    assert not torch.equal(kernels_(weight, "natural", generator=source()), stem.weight)


def test_without_a_depth_kernels_of_all_depths_are_drawn() -> None:
    prior, weight = load_prior("tinyimagenet-3x3"), torch.empty(6, 4, 3, 3)
    expected = prior.sample(24, source()).view(6, 4, 3, 3)
    kernels_(weight, "tinyimagenet-3x3", generator=source())
    torch.testing.assert_close(weight / rms(weight), expected / rms(expected))
    last = [
        kernels_(torch.empty(6, 4, 3, 3), "tinyimagenet-3x3", depth=d, generator=source()) for d in (1, Fraction(1))
    ]
    assert torch.equal(*last) and not torch.equal(weight, last[0])


@pytest.mark.parametrize("weight", [nn.Parameter(torch.zeros(4, 4, 3, 3)), torch.full((4, 4, 3, 3), math.nan)])
@pytest.mark.parametrize("scale", ["keep", "fan_in"])
def test_a_weight_without_a_scale_gets_hes_response(weight: Tensor, scale: str, gaussian: Fit) -> None:
    """It is drawn whatever its author set up, because the caller asks for this very tensor."""
    assert kernels_(weight, gaussian(3), scale=scale) is weight and weight.grad_fn is None
    layer = between(nn.Conv2d(4, 4, 3))
    layer[1].weight = nn.Parameter(weight.detach())
    assert responses(layer)["1"] == pytest.approx(math.sqrt(2 / 36), rel=1e-5)


def test_a_frozen_weight_is_drawn(gaussian: Fit) -> None:
    weight = nn.Parameter(torch.ones(4, 4, 3, 3), requires_grad=False)
    assert len(kernels_(weight, gaussian(3)).unique()) > 100 and not weight.requires_grad


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(4, 8, 3), 36),
        (nn.Conv2d(8, 8, 3, groups=2, dilation=(1, 3)), 36),
        (nn.ConvTranspose2d(8, 4, 3, stride=2), 18),
        (nn.ConvTranspose2d(8, 8, 3, stride=(2, 1), groups=2), 18),
    ],
)
@pytest.mark.parametrize("gain", [1, 5 / 3, math.sqrt(2)])
def test_gain(layer: nn.Module, fan_in: int, gain: float, gaussian: Fit) -> None:
    """Layers without a ReLU, such as the last one of SRResNet, need no √2."""
    kernels_(layer.weight, gaussian(3), gain=gain, **usage(layer))
    assert responses(between(layer))["1"] == pytest.approx(gain / math.sqrt(fan_in), rel=1e-5)


@pytest.mark.parametrize("mark", ["meta", "loaded"])
def test_nothing_happens_where_torchs_own_functions_do_nothing(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, and for a tensor of a checkpoint that transformers loads; not even a prior is read."""
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda tensor: tensor)  # as transformers does until it is loaded
    weight = torch.ones(4, 4, 3, 3, device="meta" if mark == "meta" else "cpu")
    weight._is_hf_initialized = mark == "loaded"
    assert kernels_(weight, "nowhere/to-be-found") is weight and (mark == "meta" or bool((weight == 1).all()))
    with pytest.raises(ValueError, match="groups must divide the 4 channels"):
        kernels_(weight, "natural", groups=3)


def test_layers_that_are_drawn_one_by_one_differ() -> None:
    model = between(nn.Conv2d(8, 8, 3))
    generator = source()

    def draw(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            kernels_(module.weight, "natural", generator=generator)

    model.apply(draw)
    assert not torch.equal(model[1].weight, model[2].weight)


def test_bundled_priors_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = kernels_(torch.empty(4, 4, 3, 3), "natural", generator=source())
    load_prior("tinyimagenet-3x3").mixtures[0].loc.fill_(9)  # another copy
    monkeypatch.setattr(rules, "load_with", lambda *_: pytest.fail("it is read again"))
    assert torch.equal(first, kernels_(torch.empty(4, 4, 3, 3), "natural", generator=source()))


def test_a_set_that_has_changed_is_read_again(gaussian: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (3, 5):
        monkeypatch.setitem(SETS, "mine", PriorSet(dense=[gaussian(size)], name="mine"))
        assert kernels_(torch.zeros(4, 4, size, size), "mine").any()


BAD: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"weight": nn.Conv2d(4, 4, 3)}, "weight must be a torch.Tensor; got Conv2d"),
    (ValueError, {"weight": torch.zeros(4, 4)}, r"weight has shape \(4, 4\); expected \(out, in/groups, \*size\)"),
    (ValueError, {"weight": torch.zeros(0, 4, 3, 3)}, r"shape \(0, 4, 3, 3\); .* kernels of 1 to 3 axes, none empty"),
    (ValueError, {"weight": torch.zeros(4, 4, 5, 5)}, r"a weight of shape \(4, 4, 5, 5\): no prior given fits 5×5"),
    (ValueError, {"weight": torch.zeros(4, 4, 3, 3, dtype=torch.int8)}, "its weight has dtype torch.int8: it must be"),
    (ValueError, {"prior": "nature"}, "no prior and no folder is called 'nature'; did you mean 'natural'"),
    (TypeError, {"prior": {"*": "natural"}}, "a mapping from patterns to priors .*: give it to apply_"),
    (ValueError, {"groups": 3}, r"groups must divide the 4 channels of a weight \(4, 4, 3, 3\); got 3"),
    (ValueError, {"groups": 0}, r"groups must divide the 4 channels .*; got 0"),
    (TypeError, {"groups": 1.0}, r"groups must be an int; got 1\.0"),
    (ValueError, {"stride": 0}, "stride must be a whole number above 0, or one for each of the 2 axes; got 0"),
    (ValueError, {"dilation": (1, 1, 1)}, r"dilation must be .* of the 2 axes; got \(1, 1, 1\)"),
    (TypeError, {"transposed": 1}, "transposed must be True or False; got 1"),
    (ValueError, {"depth": 2}, "depth must be None or a number from 0, the first layer, to 1, the last; got 2"),
    (ValueError, {"depth": math.nan}, "depth must be None or a number .*; got nan"),
    (ValueError, {"gain": 0}, "gain must be a number above 0, such as 1 for a layer without a ReLU; got 0"),
    (ValueError, {"gain": "relu"}, "gain must be a number above 0, .*; got 'relu'"),
    (ValueError, {"gain": 1, "scale": "prior"}, "gain=1 has no effect with scale='prior'; remove it, or take scale="),
    (ValueError, {"scale": "he"}, "scale must be one of 'keep', 'fan_in', 'prior'; got 'he'"),
    (TypeError, {"resize": 1}, "resize must be True or False; got 1"),
    (ValueError, {"noise": False}, "noise=False has no effect: tinyimagenet-3x3 has no noise step"),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), BAD)
def test_helpful_errors(kind: type[Exception], arguments: dict[str, Any], message: str) -> None:
    given = {"weight": torch.zeros(4, 4, 3, 3), "prior": "tinyimagenet-3x3", **arguments}
    with pytest.raises(kind, match=message):
        kernels_(**given)
    assert not isinstance(given["weight"], Tensor) or not given["weight"].any()


def test_a_weight_without_memory_of_its_own_is_an_error() -> None:
    weight = torch.zeros(1, 1, 3, 3).expand(4, 4, 3, 3)
    with pytest.raises(ValueError, match=r"\(4, 4, 3, 3\): many of its weights are one number in memory"):
        init.kernels_(weight, "natural")
    assert not weight.any()
