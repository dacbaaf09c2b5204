"""Every kind of layer: how it is drawn, or why it is skipped."""

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from dwp_init import Gaussian, apply_
from dwp_init.convolutions import LAYER_CLASSES, find_layers, he_rms, is_convolution, is_depthwise, layer_of
from dwp_init.layers import KINDS, Layer
from dwp_init.tensors import is_virtual
from tests.models import Convolution, Fit, Snapshot, fake_mode, parametrized, responses, rms

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CONVOLUTIONS = [  # with the number of weights that reach one output value
    (lambda: nn.Conv2d(4, 8, 3), 36),
    (lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, bias=False), 36),
    (lambda: nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), 36),
    (lambda: nn.Conv2d(4, 8, 3, groups=2), 18),
    (lambda: nn.Conv2d(8, 16, 3, groups=8), 9),
    (lambda: nn.ConvTranspose2d(4, 8, 3), 36),
    (lambda: nn.ConvTranspose2d(4, 8, 3, stride=3), 4),
    (lambda: nn.ConvTranspose2d(4, 8, 3, stride=(1, 3), groups=2), 6),
    (lambda: nn.ConvTranspose2d(8, 8, 3, groups=8, output_padding=1, stride=2), 2.25),
]


class Squared(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


@pytest.mark.parametrize(("make", "fan_in"), CONVOLUTIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_convolution_is_drawn_with_its_fan_in(
    make: Callable[[], Convolution], fan_in: float, device: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = nn.Sequential(make(), nn.BatchNorm2d(8)).to(device)
    weight, shape, before = model[0].weight, model[0].weight.shape, snapshot(model)
    report = apply_(model, gaussian(3), seed=0, scale="fan_in")
    after = snapshot(model)
    assert report.initialized == ["0"]
    assert {name for name in before if before[name] != after[name]} == {"0.weight"}
    assert model[0].weight is weight and weight.shape == shape and weight.device.type == device
    assert responses(model)["0"] == pytest.approx(math.sqrt(2 / fan_in), rel=1e-5)
    assert report.drawn[0].rms_after == pytest.approx(rms(weight), rel=1e-5)


@pytest.mark.parametrize("make", [make for make, _ in CONVOLUTIONS])
def test_fan_in_gives_correlated_input_a_second_moment_of_two(make: Callable[[], Convolution], gaussian: Fit) -> None:
    layer = make()
    layer.bias = None
    apply_(layer, gaussian(3), seed=0, scale="fan_in")
    found = find_layers(layer, lambda named: True)[0]
    alike, rho = found.alike, found.rho
    own, common = torch.randn(2, 64, layer.in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
    x = math.sqrt(1 - alike) * own + math.sqrt(alike) * common[:, :1]
    for axis in (2, 3):  # an autoregression of first order, whose correlations are powers of ρ
        lines = x.unbind(axis)
        smooth = [lines[0]]
        for line in lines[1:]:
            smooth.append(rho * smooth[-1] + math.sqrt(1 - rho**2) * line)
        x = torch.stack(smooth, axis)
    with torch.no_grad():
        output = layer(x)
    assert output[..., 3:-3, 3:-3].square().mean().item() == pytest.approx(2, rel=0.1)


def test_replaced_weight_counts_not_the_attributes(gaussian: Fit) -> None:
    layer = nn.Conv2d(3, 8, 3)
    layer.weight = nn.Parameter(layer.weight.detach().sum(1, keepdim=True))
    apply_(layer, gaussian(3), seed=0, scale="fan_in")
    assert responses(layer)[""] == pytest.approx(math.sqrt(2 / 9), rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_kernels_of_several_channels_span_input_channels(kind: type[Convolution], groups: int) -> None:
    half = torch.randn(100, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    prior = Gaussian((2, 3, 3)).fit_(torch.cat([half, -half], 1))
    layer = kind(4 * groups, 6 * groups, 3, groups=groups)
    apply_(layer, prior, seed=0, scale="prior")
    by_input = layer.weight.detach() if kind is nn.ConvTranspose2d else layer.weight.detach().transpose(0, 1)
    torch.testing.assert_close(by_input[::2], -by_input[1::2], atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="'Gaussian' is for 2×3×3 kernels; the model has 3×3"):
        apply_(kind(3, 6, 3), prior)


class Scaled(nn.Conv2d):
    """A subclass with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_subclass_of_a_convolution_is_one(gaussian: Fit) -> None:
    report = apply_(Scaled(1, 2, 3), gaussian(3))
    assert report.drawn[0].kind == "Scaled 2×1×3×3"


def _fake() -> nn.Module:
    with fake_mode():
        return nn.Conv2d(1, 2, 3)


def _quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.ao.nn import quantized

            return quantized.Conv2d(1, 2, 3)
        except (ImportError, RuntimeError):
            fake = type("Conv2d", (nn.Module,), {"__module__": "torch.ao.nn.quantized.modules.conv"})()
            fake.kernel_size = (3, 3)
            return fake


def _with_weight(weight: Tensor) -> nn.Module:
    layer = nn.Conv2d(1, 2, 3, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


ON_META = "on the meta device: give it memory, with to_empty(device=...), and values as usual, first"
REPLACED = "its weight is not a parameter, as under prune: call apply_ before the weight is replaced"
SKIPS = [
    (lambda: nn.Conv1d(1, 2, 3), "no prior given fits length-3 kernels here; prior=[…, 'audio'] would draw them"),
    (
        lambda: nn.ConvTranspose3d(1, 2, 3),
        "no prior given fits 3×3×3 kernels here; prior=[…, 'brain-mri'] would draw them",
    ),
    (lambda: nn.Conv2d(1, 2, (5, 1)), "no prior given fits 5×1 kernels here; resize=True would take Gaussian"),
    (lambda: nn.Linear(3, 3), "not a convolution"),
    (lambda: nn.BatchNorm2d(3), "not a convolution"),
    (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), "not a convolution"),
    (lambda: parametrizations.weight_norm(nn.Conv2d(1, 2, 3, device="meta")), ON_META),
    (lambda: nn.LazyConv2d(2, 3), "lazy: run a forward pass first, so that its shape is known"),
    (lambda: nn.Conv2d(1, 2, 3, device="meta"), ON_META),
    (_quantized, "quantized: initialise the model before quantizing it"),
    (
        lambda: _with_weight(torch.ones(2, 1, 3, 3, dtype=torch.int8)),
        "its weight has dtype torch.int8: it must be a real floating-point type",
    ),
    (
        lambda: nn.Conv2d(1, 2, 3, dtype=torch.complex64),
        "its weight has dtype torch.complex64: it must be a real floating-point type",
    ),
    (
        lambda: _with_weight(torch.ones(2, 0, 3, 3)),
        "its weight has shape (2, 0, 3, 3): it must have 4 dimensions, none of them empty",
    ),
    (lambda: _with_weight(torch.ones(18)), "its weight has shape (18,): it must have 4 dimensions, none of them empty"),
    (
        lambda: parametrized(nn.Conv2d(1, 2, 3), Squared()),
        "its parametrization Squared has no right_inverse: call apply_ before registering it",
    ),
    (_fake, "a FakeTensor, without values: call apply_ outside FakeTensorMode"),
    (lambda: prune.l1_unstructured(nn.Conv2d(1, 2, 3), "weight", amount=0.5), REPLACED),
]


@pytest.mark.parametrize(("make", "reason"), SKIPS)
def test_other_layers_are_skipped_with_a_reason(make: Callable[[], nn.Module], reason: str, gaussian: Fit) -> None:
    other = make()
    before = repr(other.state_dict())
    report = apply_(nn.Sequential(nn.Conv2d(1, 2, 3), other), gaussian(3))
    assert report.initialized == ["0"]
    assert report.skipped == {"1": reason}
    if is_convolution(other) and not is_virtual(other):
        with pytest.raises(ValueError, match="no layer can be initialised") as error:
            apply_(other, gaussian(3))
        assert reason.startswith("no prior given fits") or str(error.value).endswith(f": {reason}")
    assert repr(other.state_dict()) == before


def test_a_class_of_the_user_called_quantized_is_not_a_quantized_layer(gaussian: Fit) -> None:
    kind = type("ConvBlock", (nn.Sequential,), {"__module__": "mine.quantized.blocks"})
    report = apply_(kind(nn.Conv2d(1, 2, 3)), gaussian(3))
    assert (report.initialized, report.skipped) == (["0"], {})


@pytest.mark.parametrize(
    ("layer", "first", "expected"),
    [
        (nn.Conv2d(3, 8, 3), True, ("stem", "dense")),
        (nn.Conv2d(1, 8, 3), True, ("stem", "dense")),
        (nn.Conv2d(3, 8, 3), False, ("dense",)),
        (nn.Conv2d(4, 8, 3, groups=2), True, ("dense",)),
        (nn.Conv2d(4, 8, 3, groups=4), True, ("depthwise",)),
        (nn.ConvTranspose2d(4, 4, 3, groups=4), False, ("depthwise",)),
        (nn.Conv2d(4, 12, 3, groups=4), False, ("depthwise",)),
    ],
)
def test_kinds(layer: nn.Conv2d, first: bool, expected: tuple[str, ...]) -> None:
    assert layer_of(layer, first=first).kinds == expected and set(expected) <= set(KINDS)
    assert is_depthwise(layer) == (expected == ("depthwise",))


def test_he_rms_and_is_depthwise_want_a_layer_that_can_be_initialised() -> None:
    assert he_rms(nn.Conv2d(4, 8, 3)) == math.sqrt(2 / 36)
    for function in (he_rms, is_depthwise):
        with pytest.raises(ValueError, match="Linear cannot be initialised: not a convolution"):
            function(nn.Linear(3, 3))


def test_layers_are_found_in_order_with_their_depths() -> None:
    """A 1×1 convolution has no depth of its own, one that is not asked for has; its weight is not read."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 5)
    )
    found = find_layers(model, lambda named: named.name != "5")
    assert [(layer.name, layer.depth, layer.first) for layer in found] == [
        ("0", 0.0, True),
        ("1", 0.0, False),
        ("2", 0.0, False),
        ("3", 0.5, False),
        ("5", 1.0, False),
    ]
    assert [layer.is_convolution for layer in found] == [True, False, True, True, True]
    assert [tuple(layer.shape) for layer in found] == [(4, 1, 3, 3), (), (4, 4, 1, 1), (4, 4, 3), ()]
    assert [layer.weights for layer in found] == [36, 4, 16, 48, 400]
    assert [layer.asked for layer in found] == [True, True, True, True, False]


HEAD, STEM, SQUEEZED = nn.Conv2d(8, 6, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(2, 1, 7)
WIDE, GROUPED = nn.Conv2d(12, 8, 3), nn.Conv2d(4, 8, 3, groups=2)


@pytest.mark.parametrize(
    ("layers", "depths"),
    [
        ([STEM, WIDE, HEAD], [0, 0.5, 1]),
        ([HEAD, WIDE, STEM, GROUPED, WIDE], [0.75, 1, 0, 0.25, 0.5]),  # a head and a neck before the backbone
        ([nn.Conv2d(3, 8, 1), HEAD, STEM], [0, 1, 0]),  # a 1×1 layer is no stem
        ([WIDE, SQUEEZED, GROUPED], [0, 0.5, 1]),  # no stem: images of 12 channels, attention over 2 of them
    ],
)
def test_depth_starts_at_the_stem(layers: list[nn.Conv2d], depths: list[float]) -> None:
    model = nn.Sequential(*map(copy.deepcopy, layers))
    found = find_layers(model, lambda named: True)
    assert [layer.depth for layer in found] == depths
    assert [layer.first for layer in found] == [layer.depth == 0 and layer.is_spatial for layer in found]


def test_each_layer_that_reads_images_is_a_stem_unless_another_is_before_it() -> None:
    torch.manual_seed(0)
    encoders = {
        name: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)) for name in "ab"
    }
    critic = nn.Sequential(nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 3), nn.Conv2d(2, 8, 3))  # none reads images
    model = nn.ModuleDict({**encoders, "alone": nn.Conv2d(3, 8, 5), "critic": critic, "latents": nn.Conv2d(3, 8, 3)})
    found = {layer.name: layer for layer in find_layers(model, lambda named: True)}
    stems = {"a.0", "b.0", "alone"}
    assert {name for name, layer in found.items() if layer.first} == stems
    assert all(found[name].depth == 0 and found[name].kinds == ("stem", "dense") for name in stems)
    drawn = {row.layer: row.prior for row in apply_(model, "natural", seed=0).drawn}
    assert {name for name, prior in drawn.items() if prior == "natural-stem"} == stems


@pytest.mark.parametrize("returned", [3, 6])
def test_what_reads_latents_of_an_autoencoder_is_no_stem(returned: int) -> None:
    """Of as many channels as the images, or of means and variances of as many."""
    parts = {"encoder": nn.Conv2d(3, 8, 3), "moments": nn.Conv2d(8, returned, 3), "decoder": nn.Conv2d(3, 8, 3)}
    found = find_layers(nn.ModuleDict(parts), lambda named: True)
    assert [layer.name for layer in found if layer.first] == ["encoder"]


def test_parallel_stems_of_twice_as_many_filters_as_channels_are_all_stems() -> None:
    made = {name: nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 16, 5)) for name in "abc"}
    found = find_layers(nn.ModuleDict(made), lambda named: True)
    assert [layer.name for layer in found if layer.first] == ["a.0", "b.0", "c.0"]


class Patches(nn.Module):
    """A kind of layer that torch does not know, with the transposed weight of a convolution."""

    kernel_size = (3, 3)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 3, 3))


class PatchesLayer(Layer):
    """Says how kernels become the weight of :class:`Patches`."""

    @property
    def inputs(self) -> int:
        return self.shape[0]

    def filters(self, weight: Tensor) -> Tensor:
        return weight.transpose(0, 1)

    def arrange(self, kernels: Tensor) -> Tensor:
        return super().arrange(kernels.reshape(self.shape[1], self.inputs, 3, 3).transpose(0, 1))


def test_a_new_kind_of_layer_is_one_entry(gaussian: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, plain = Patches(2, 8), nn.Conv2d(2, 8, 3)
    reason = "Patches with a weight (2, 8, 3, 3) has no groups: initialise it yourself"
    assert apply_(nn.Sequential(patches, plain), gaussian(3)).skipped == {"0": reason}
    monkeypatch.setitem(LAYER_CLASSES, Patches, PatchesLayer)
    apply_(plain, gaussian(3), seed=0, scale="fan_in")
    report = apply_(patches, gaussian(3), seed=0, scale="fan_in")
    assert report.drawn[0].kind == "Patches 2×8×3×3"
    torch.testing.assert_close(patches.weight.transpose(0, 1), plain.weight)
