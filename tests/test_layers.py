"""Every kind of layer and of weight: how it is drawn, or why it is left alone."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from dwp_init import Gaussian, apply_, layers

Fit = Callable[..., Gaussian]
Snapshot = Callable[[nn.Module], dict[str, bytes]]
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


class Doubled(nn.Module):
    """A parametrization with an inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


class Squared(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Summed(nn.Module):
    """A parametrization whose inverse breaks once ``broken`` is set, and not before, as registering it tries it."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        return x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) if self.broken else x


def rms(weight: Tensor) -> float:
    return weight.double().square().mean().sqrt().item()


def parametrized(layer: nn.Module, *parts: nn.Module) -> nn.Module:
    for part in parts:
        parametrize.register_parametrization(layer, "weight", part)
    return layer


def old_style(wrap: Callable[..., nn.Module], layer: nn.Module, **options: object) -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        return wrap(layer, **options)


@pytest.mark.parametrize(("make", "fan_in"), CONVOLUTIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_convolution_is_drawn_with_its_fan_in(
    make: Callable[[], layers.Conv2d], fan_in: float, device: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = nn.Sequential(make(), nn.BatchNorm2d(8)).to(device)
    weight, shape, before = model[0].weight, model[0].weight.shape, snapshot(model)
    report = apply_(model, gaussian(3), seed=0)
    after = snapshot(model)
    assert report.initialized == ["0"]
    assert {name for name in before if before[name] != after[name]} == {"0.weight"}
    assert model[0].weight is weight and weight.shape == shape and weight.device.type == device
    assert rms(weight) == pytest.approx(math.sqrt(2 / fan_in), rel=1e-5)
    assert report.drawn[0].rms_after == pytest.approx(rms(weight), rel=1e-5)


@pytest.mark.parametrize("make", [make for make, _ in CONVOLUTIONS])
def test_fan_in_gives_white_input_a_second_moment_of_two(make: Callable[[], layers.Conv2d], gaussian: Fit) -> None:
    layer = make().requires_grad_(False)
    layer.bias = None
    apply_(layer, gaussian(3), seed=0)
    generator = torch.Generator().manual_seed(0)
    output = layer(torch.randn(64, layer.in_channels, 32, 32, generator=generator))
    assert output[..., 3:-3, 3:-3].square().mean().item() == pytest.approx(2, rel=0.05)


def test_replaced_weight_counts_not_the_attributes(gaussian: Fit) -> None:
    layer = nn.Conv2d(3, 8, 3)
    layer.weight = nn.Parameter(layer.weight.detach().sum(1, keepdim=True))
    apply_(layer, gaussian(3), seed=0)
    assert rms(layer.weight) == pytest.approx(math.sqrt(2 / 9), rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_kernels_of_several_channels_span_input_channels(kind: type[layers.Conv2d], groups: int) -> None:
    half = torch.randn(100, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    prior = Gaussian((2, 3, 3)).fit_(torch.cat([half, -half], 1))
    layer = kind(4 * groups, 6 * groups, 3, groups=groups)
    apply_(layer, prior, seed=0, scale="prior")
    by_input = layer.weight.detach() if kind is nn.ConvTranspose2d else layer.weight.detach().transpose(0, 1)
    torch.testing.assert_close(by_input[::2], -by_input[1::2], atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="no prior given fits 3×3 kernels here"):
        apply_(kind(3, 6, 3), prior)


@pytest.mark.parametrize("scale", ["fan_in", "prior"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_cast_from_one_float32_draw(dtype: torch.dtype, scale: str, gaussian: Fit) -> None:
    full, cast = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3, dtype=dtype)
    for layer in (full, cast):
        apply_(layer, gaussian(3), seed=0, scale=scale)
    assert cast.weight.dtype == dtype
    assert torch.equal(cast.weight, full.weight.to(dtype))


def test_draw_that_overflows_its_dtype_is_an_error(gaussian: Fit) -> None:
    prior, layer = gaussian(3), nn.Conv2d(4, 8, 3, dtype=torch.float16)
    prior.whitening.loc.fill_(1e6)
    with pytest.raises(ValueError, match=r"layer '\(model\)' could not be drawn: .* root mean square inf; fit it anew"):
        apply_(layer, prior, scale="prior")


def test_channels_last_is_kept_and_changes_no_value(gaussian: Fit) -> None:
    plain, last = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    strides = last.weight.stride()
    for layer in (plain, last):
        apply_(layer, gaussian(3), seed=0)
    assert last.weight.stride() == strides != plain.weight.stride()
    assert torch.equal(plain.weight, last.weight)


@pytest.mark.parametrize("flag", [False, True])
def test_requires_grad_and_mode_are_kept(flag: bool, gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout()).requires_grad_(flag).train(flag)
    apply_(model, gaussian(3))
    assert [part.training for part in model.modules()] == [flag] * 3
    assert [weight.requires_grad for weight in model.parameters()] == [flag] * 2
    assert model[0].weight.grad_fn is None and model[0].weight.is_leaf


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm over all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "custom": lambda layer: parametrized(layer, Doubled()),
    "chain of two": lambda layer: parametrized(parametrizations.weight_norm(layer), Doubled()),
    "old weight_norm": lambda layer: old_style(nn.utils.weight_norm, layer),
    "old weight_norm over all": lambda layer: old_style(nn.utils.weight_norm, layer, dim=None),
}


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_are_written_through_what_makes_them(
    wrapper: str, kind: type[layers.Conv2d], gaussian: Fit, snapshot: Snapshot
) -> None:
    plain, wrapped = kind(4, 8, 3), WRAPPERS[wrapper](kind(4, 8, 3))
    stored, bias = layers.stored_tensors(wrapped), snapshot(wrapped)["bias"]
    apply_(plain, gaussian(3), seed=0)
    report = apply_(wrapped, gaussian(3), seed=0)
    torch.testing.assert_close(wrapped.weight.detach(), plain.weight.detach())
    assert wrapped.training and all(part.training for part in wrapped.modules())
    assert all(now is then for now, then in zip(layers.stored_tensors(wrapped), stored, strict=True))
    assert snapshot(wrapped)["bias"] == bias and report.skipped == {}
    x = torch.ones(1, 4, 9, 9)
    function = F.conv2d if kind is nn.Conv2d else F.conv_transpose2d
    torch.testing.assert_close(wrapped(x), function(x, plain.weight, wrapped.bias))


@pytest.mark.parametrize("training", [False, True])
def test_spectral_norm_keeps_its_buffers_and_reports_the_scale_it_gives(
    training: bool, gaussian: Fit, snapshot: Snapshot
) -> None:
    layer = parametrizations.spectral_norm(nn.Conv2d(4, 8, 3)).train(training)
    before = snapshot(layer)
    apply_(layer, gaussian(3), seed=0, dry_run=True)
    assert snapshot(layer) == before
    report = apply_(layer, gaussian(3), seed=0)
    after = snapshot(layer)
    assert {name for name in before if before[name] != after[name]} == {"parametrizations.weight.original"}
    assert rms(layer.parametrizations.weight.original) == pytest.approx(math.sqrt(2 / 36), rel=1e-5)
    assert all(part.training == training for part in layer.modules())
    assert report.drawn[0].rms_after == pytest.approx(rms(layer.eval().weight), rel=1e-5)


def test_before_is_read_from_the_parameters_not_from_a_stale_weight(gaussian: Fit) -> None:
    layer = old_style(nn.utils.weight_norm, nn.Conv2d(4, 8, 3))
    with torch.no_grad():
        layer.weight_g.fill_(6)
    assert apply_(layer, gaussian(3)).drawn[0].rms_before == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (parametrizations.orthogonal, "_Orthogonal keeps part of the weight in its own tensors, which apply_ leaves"),
        (
            lambda layer: parametrizations.orthogonal(layer, use_trivialization=False),
            "_Orthogonal refuses a new weight (",
        ),
    ],
)
def test_parametrization_that_cannot_take_a_draw_is_left_alone(
    wrap: Callable[[nn.Module], nn.Module], message: str, dry_run: bool, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), wrap(nn.Conv2d(8, 8, 3)))
    before, state = snapshot(model[1]), torch.get_rng_state()
    report = apply_(model, gaussian(3), seed=0, dry_run=dry_run)
    assert report.initialized == ["0"] and list(report.skipped) == ["1"]
    assert report.skipped["1"].startswith(f"its parametrization {message}")
    assert report.skipped["1"].endswith("call apply_ before registering it, or leave the layer out with layers=")
    assert snapshot(model[1]) == before and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="strict: 1: its parametrization _Orthogonal"):
        apply_(model, gaussian(3), strict=True, dry_run=dry_run)


class Noisy(Doubled):
    """A parametrization that draws random numbers, and counts its forward passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        torch.rand(1)
        return super().forward(x)


def test_a_parametrizations_own_randomness_leaves_the_global_state(gaussian: Fit) -> None:
    layer = parametrized(nn.Conv2d(4, 8, 3), Noisy())
    part, state = layer.parametrizations.weight[0], torch.get_rng_state()
    part.passes = 0
    apply_(layer, gaussian(3), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert part.passes == 4  # its shape, its inverse, before, after


def test_inverse_of_another_shape_is_an_error_not_a_broadcast(gaussian: Fit, snapshot: Snapshot) -> None:
    layer = parametrized(nn.Conv2d(4, 8, 3), Summed())
    before, layer.parametrizations.weight[0].broken = snapshot(layer), True
    for dry_run in (False, True):
        with pytest.raises(ValueError, match=r"shapes \[\(8, 1, 3, 3\)\], but .* have \[\(8, 4, 3, 3\)\]; mend it"):
            apply_(layer, gaussian(3), dry_run=dry_run)
    assert snapshot(layer) == before


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


SKIPS = [
    (lambda: nn.Conv1d(1, 2, 3), "Conv1d: priors are over 2-D kernels"),
    (lambda: nn.ConvTranspose3d(1, 2, 3), "ConvTranspose3d: priors are over 2-D kernels"),
    (lambda: nn.Conv2d(1, 2, (3, 1)), "no prior given fits 3×1 kernels here"),
    (lambda: nn.Linear(3, 3), "not a convolution"),
    (lambda: nn.BatchNorm2d(3), "not a convolution"),
    (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), "not a convolution"),
    (lambda: nn.LazyConv2d(2, 3), "lazy: run a forward pass first, so that its shape is known"),
    (lambda: nn.Conv2d(1, 2, 3, device="meta"), "on the meta device: give it memory first, with to_empty(device=...)"),
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
        "its weight has shape (2, 0, 3, 3): it must have four dimensions, none of them empty",
    ),
    (
        lambda: _with_weight(torch.ones(18)),
        "its weight has shape (18,): it must have four dimensions, none of them empty",
    ),
    (
        lambda: parametrized(nn.Conv2d(1, 2, 3), Squared()),
        "its parametrization Squared has no right_inverse: call apply_ before registering it",
    ),
    (
        lambda: nn.utils.spectral_norm(nn.Conv2d(1, 2, 3)),
        "its weight is no parameter of its own, as under prune: call apply_ before the weight is replaced",
    ),
    (
        lambda: prune.l1_unstructured(nn.Conv2d(1, 2, 3), "weight", amount=0.5),
        "its weight is no parameter of its own, as under prune: call apply_ before the weight is replaced",
    ),
]


@pytest.mark.parametrize(("make", "reason"), SKIPS)
def test_other_layers_are_left_alone_with_a_reason(make: Callable[[], nn.Module], reason: str, gaussian: Fit) -> None:
    other = make()
    before = repr(other.state_dict())
    report = apply_(nn.Sequential(nn.Conv2d(1, 2, 3), other), gaussian(3))
    assert report.initialized == ["0"]
    assert report.skipped == {"1": reason}
    if layers.is_convolution(other):
        with pytest.raises(ValueError, match="no layer can be initialised") as error:
            apply_(other, gaussian(3))
        assert str(error.value).endswith(f"(model): {reason}")
    assert repr(other.state_dict()) == before


def test_own_class_called_quantized_is_no_quantized_layer(gaussian: Fit) -> None:
    kind = type("ConvBlock", (nn.Sequential,), {"__module__": "mine.quantized.blocks"})
    report = apply_(kind(nn.Conv2d(1, 2, 3)), gaussian(3))
    assert (report.initialized, report.skipped) == (["0"], {})


class Scaled(nn.Conv2d):
    """A subclass with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_subclass_of_a_convolution_is_one(gaussian: Fit) -> None:
    report = apply_(Scaled(1, 2, 3), gaussian(3))
    assert report.drawn[0].kind == "Scaled 2×1×3×3"


def _tied(kind: type[layers.Conv2d], share: Callable[[nn.Parameter], nn.Parameter]) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), kind(4, 4, 3))
    model[1].weight = share(model[0].weight)
    return model


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("share", [lambda weight: weight, lambda weight: nn.Parameter(weight.data)])
def test_shared_weights_are_drawn_once(
    kind: type[layers.Conv2d], share: Callable[[nn.Parameter], nn.Parameter], gaussian: Fit
) -> None:
    model, alone = _tied(kind, share), nn.Sequential(nn.Conv2d(4, 4, 3))
    report = apply_(model, gaussian(3), seed=0)
    apply_(alone, gaussian(3), seed=0)
    assert (report.initialized, report.skipped) == (["0"], {"1": "shares the weight of 0"})
    assert torch.equal(model[1].weight, alone[0].weight)
    second = apply_(model, gaussian(3), seed=0, layers="1")
    assert (second.initialized, second.skipped) == (["1"], {"0": "shares the weight of 1"})


def test_shared_parametrized_weights_are_drawn_once(gaussian: Fit) -> None:
    model = nn.Sequential(*(parametrizations.weight_norm(nn.Conv2d(4, 4, 3)) for _ in range(2)))
    assert apply_(model, gaussian(3)).initialized == ["0", "1"]
    ours, theirs = (layer.parametrizations.weight for layer in model)
    theirs.original1 = ours.original1
    part = "shares part of the memory of 0, not all: give it a weight of its own"
    assert apply_(model, gaussian(3)).skipped == {"1": part}
    assert apply_(model, gaussian(3), layers="0").skipped == {"1": part}
    with pytest.raises(ValueError, match=f"strict: 1: {part}"):
        apply_(model, gaussian(3), strict=True)
    theirs.original0 = ours.original0
    assert apply_(model, gaussian(3), strict=True).skipped == {"1": "shares the weight of 0"}


@pytest.mark.parametrize(
    "part",
    [lambda whole: whole[:4], lambda whole: whole[2:6], lambda whole: whole[4:], lambda whole: whole.transpose(2, 3)],
)
def test_a_weight_that_overlaps_another_is_left_alone(part: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3))
    model[1].weight = nn.Parameter(part(model[0].weight.data))
    report = apply_(model, Gaussian((1, 3, 3)), seed=0)
    assert report.initialized == ["0"]
    assert report.skipped == {"1": "shares part of the memory of 0, not all: give it a weight of its own"}
    assert rms(model[0].weight) == pytest.approx(math.sqrt(2 / 36), rel=1e-5)


def test_weights_that_interlock_in_one_storage_are_both_drawn(gaussian: Fit) -> None:
    model, whole = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)), torch.zeros(8, 8, 3, 3)
    for layer, half in zip(model, whole.chunk(2, dim=1), strict=True):
        layer.weight = nn.Parameter(half)
    assert apply_(model, gaussian(3), strict=True).initialized == ["0", "1"]
    assert (whole != 0).all()


def test_module_used_twice_is_drawn_once(gaussian: Fit) -> None:
    layer = nn.Conv2d(4, 4, 3)
    report = apply_(nn.Sequential(layer, nn.ReLU(), layer), gaussian(3))
    assert (report.initialized, report.skipped) == (["0"], {})
