"""Every kind of weight: how it is read and written, and which weights share memory."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from dwp_init import Gaussian, apply_
from dwp_init.convolutions import find_layers
from dwp_init.weights import NormedWeight, ParametrizedWeight, SpectralWeight, UnknownWeight, Weight, weight_of
from tests.models import Convolution, Doubled, Fit, Snapshot, old_style, parametrized, responses, rms


class Summed(nn.Module):
    """A parametrization whose inverse breaks once ``broken`` is set; registering it calls the inverse before that."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        return x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) if self.broken else x


class Noisy(Doubled):
    """A parametrization that draws random numbers, and counts its forward passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        torch.rand(1)
        return super().forward(x)


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
    with pytest.raises(ValueError, match=r"layer '\(model\)' could not be drawn: .* square inf; fit it again"):
        apply_(layer, prior, scale="prior")


def test_channels_last_is_kept_and_changes_no_value(gaussian: Fit) -> None:
    plain, last = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    strides = last.weight.stride()
    for layer in (plain, last):
        apply_(layer, gaussian(3), seed=0, scale="fan_in")
    assert last.weight.stride() == strides != plain.weight.stride()
    assert torch.equal(plain.weight, last.weight)


@pytest.mark.parametrize("flag", [False, True])
def test_requires_grad_and_mode_are_kept(flag: bool, gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout()).requires_grad_(flag).train(flag)
    apply_(model, gaussian(3), layers="0")
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
    wrapper: str, kind: type[Convolution], gaussian: Fit, snapshot: Snapshot
) -> None:
    plain, wrapped = kind(4, 8, 3), WRAPPERS[wrapper](kind(4, 8, 3))
    stored, bias = weight_of(wrapped).stored, snapshot(wrapped)["bias"]
    apply_(plain, gaussian(3), seed=0, scale="fan_in")
    report = apply_(wrapped, gaussian(3), seed=0, scale="fan_in")
    torch.testing.assert_close(wrapped.weight.detach(), plain.weight.detach())
    assert wrapped.training and all(part.training for part in wrapped.modules())
    assert all(now is then for now, then in zip(weight_of(wrapped).stored, stored, strict=True))
    assert snapshot(wrapped)["bias"] == bias and report.skipped == {}
    x = torch.ones(1, 4, 9, 9)
    function = F.conv2d if kind is nn.Conv2d else F.conv_transpose2d
    torch.testing.assert_close(wrapped(x), function(x, plain.weight, wrapped.bias))


SPECTRAL: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "spectral_norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "old spectral_norm": (nn.utils.spectral_norm, "weight_orig"),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("wrap", "original"), SPECTRAL.values(), ids=SPECTRAL)
def test_under_spectral_norm_the_norm_is_one_at_once(
    wrap: Callable[[nn.Module], nn.Module], original: str, training: bool, gaussian: Fit, snapshot: Snapshot
) -> None:
    layer = wrap(nn.Conv2d(4, 8, 3)).train(training)
    before = snapshot(layer)
    apply_(layer, gaussian(3), seed=0, layers="", dry_run=True)
    assert snapshot(layer) == before
    report = apply_(layer, gaussian(3), seed=0, layers="", scale="fan_in")
    after = snapshot(layer)
    assert {name for name in before if before[name] != after[name]} == {*before} - {"bias"}
    drawn = find_layers(layer, lambda named: True)[0].measure(layer.get_parameter(original))
    assert drawn.response == pytest.approx(math.sqrt(2 / 36), rel=1e-5)
    assert all(part.training == training for part in layer.modules())
    assert torch.linalg.matrix_norm(layer.eval().weight.flatten(1), 2).item() == pytest.approx(1, rel=0.01)
    assert report.drawn[0].rms_after == pytest.approx(rms(layer.weight), rel=1e-5)
    apply_(layer, gaussian(3), seed=0, layers="", scale="fan_in")
    assert snapshot(layer) == after


def test_before_is_read_from_the_parameters_not_from_a_stale_weight(gaussian: Fit) -> None:
    layer = old_style(nn.utils.weight_norm, nn.Conv2d(4, 8, 3))
    with torch.no_grad():
        layer.weight_g.fill_(6)
    assert apply_(layer, gaussian(3)).drawn[0].rms_before == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (parametrizations.orthogonal, "_Orthogonal keeps part of the weight in its own tensors, which apply_ does not"),
        (
            lambda layer: parametrizations.orthogonal(layer, use_trivialization=False),
            "_Orthogonal refuses a new weight (",
        ),
    ],
)
def test_parametrization_that_cannot_take_a_draw_is_skipped(
    wrap: Callable[[nn.Module], nn.Module], message: str, dry_run: bool, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), wrap(nn.Conv2d(8, 8, 3)))
    before, state = snapshot(model[1]), torch.get_rng_state()
    report = apply_(model, gaussian(3), seed=0, dry_run=dry_run)
    assert report.initialized == ["0"] and list(report.skipped) == ["1"]
    assert report.skipped["1"].startswith(f"its parametrization {message}")
    assert report.skipped["1"].endswith("call apply_ before registering it, or leave the layer out with layers=")
    assert snapshot(model[1]) == before and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="strict: its parametrization _Orthogonal"):
        apply_(model, gaussian(3), strict=True, dry_run=dry_run)


class Broken(nn.Module):
    """Computes a weight once, as it is registered, and never again, as ``orthogonal`` in half precision."""

    computed = False

    def forward(self, x: Tensor) -> Tensor:
        if self.computed:
            raise NotImplementedError("not for this dtype")
        self.computed = True
        return x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


def test_a_parametrization_that_computes_no_weight_is_skipped(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3))
    parametrize.register_parametrization(model[1], "weight", broken := Broken())
    broken.computed = True
    report = apply_(model, gaussian(3))
    assert report.initialized == ["0"]
    assert report.skipped["1"].startswith(
        "its weight cannot be computed (NotImplementedError: not for this dtype), in a"
    )


@pytest.mark.parametrize("wrap", [wrap for wrap, _ in SPECTRAL.values()], ids=SPECTRAL)
def test_spectral_norm_without_values_is_drawn(wrap: Callable[[nn.Module], nn.Module], gaussian: Fit) -> None:
    layer = wrap(nn.Conv2d(4, 8, 3)).eval()
    for tensor in weight_of(layer).tensors:
        tensor.data.fill_(math.nan)
    with parametrize.cached():
        assert layer.weight is not None  # the cache has the old weight
        apply_(layer, gaussian(3), seed=0)
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.01)


def test_a_forward_pass_under_autocast_takes_the_new_weight(gaussian: Fit) -> None:
    layer, images = nn.Conv2d(4, 8, 3), torch.randn(1, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images)
        apply_(layer, gaussian(3), seed=0)
        torch.testing.assert_close(layer(images), layer.bfloat16()(images.bfloat16()))


def test_a_parametrizations_own_randomness_leaves_the_global_state(gaussian: Fit) -> None:
    layer = parametrized(nn.Conv2d(4, 8, 3), Noisy())
    part, state = layer.parametrizations.weight[0], torch.get_rng_state()
    part.passes = 0
    apply_(layer, gaussian(3), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert part.passes == 5  # its shape, whether it is to stay (also if doubled), before, after


def test_inverse_of_another_shape_is_an_error_not_a_broadcast(gaussian: Fit, snapshot: Snapshot) -> None:
    layer = parametrized(nn.Conv2d(4, 8, 3), Summed())
    before, layer.parametrizations.weight[0].broken = snapshot(layer), True
    for dry_run in (False, True):
        with pytest.raises(ValueError, match=r"shapes \[\(8, 1, 3, 3\)\], but .* have \[\(8, 4, 3, 3\)\]; fix it"):
            apply_(layer, gaussian(3), dry_run=dry_run)
    assert snapshot(layer) == before


def _tied(kind: type[Convolution], share: Callable[[nn.Parameter], nn.Parameter]) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), kind(4, 4, 3))
    model[1].weight = share(model[0].weight)
    return model


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("share", [lambda weight: weight, lambda weight: nn.Parameter(weight.data)])
def test_shared_weights_are_drawn_once(
    kind: type[Convolution], share: Callable[[nn.Parameter], nn.Parameter], gaussian: Fit
) -> None:
    model, alone = _tied(kind, share), nn.Sequential(nn.Conv2d(4, 4, 3))
    report = apply_(model, gaussian(3), seed=0, scale="fan_in")
    apply_(alone, gaussian(3), seed=0, scale="fan_in")
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
    with pytest.raises(ValueError, match=f"strict: {part} .1.;"):
        apply_(model, gaussian(3), strict=True)
    theirs.original0 = ours.original0
    assert apply_(model, gaussian(3), strict=True).skipped == {"1": "shares the weight of 0"}


@pytest.mark.parametrize(
    "part",
    [lambda whole: whole[:4], lambda whole: whole[2:6], lambda whole: whole[4:], lambda whole: whole.transpose(2, 3)],
)
def test_a_weight_that_overlaps_another_is_skipped(part: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3))
    model[1].weight = nn.Parameter(part(model[0].weight.data))
    report = apply_(model, Gaussian((1, 3, 3)), seed=0, scale="fan_in")
    assert report.initialized == ["0"]
    assert report.skipped == {"1": "shares part of the memory of 0, not all: give it a weight of its own"}
    assert responses(model)["0"] == pytest.approx(math.sqrt(2 / 36), rel=1e-5)


def test_weights_that_interlock_in_one_storage_are_both_drawn(gaussian: Fit) -> None:
    model, whole = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)), torch.randn(8, 8, 3, 3)
    before = whole.clone()
    for layer, half in zip(model, whole.chunk(2, dim=1), strict=True):
        layer.weight = nn.Parameter(half)
    assert apply_(model, gaussian(3), strict=True).initialized == ["0", "1"]
    assert (whole != before).all()


def test_module_used_twice_is_drawn_once(gaussian: Fit) -> None:
    layer = nn.Conv2d(4, 4, 3)
    report = apply_(nn.Sequential(layer, nn.ReLU(), layer), gaussian(3))
    assert (report.initialized, report.skipped) == (["0"], {})


@pytest.mark.parametrize(
    ("wrap", "kind", "stored"),
    [
        (lambda layer: layer, Weight, 1),
        (parametrizations.weight_norm, ParametrizedWeight, 2),
        (parametrizations.spectral_norm, ParametrizedWeight, 3),
        (lambda layer: old_style(nn.utils.weight_norm, layer), NormedWeight, 2),
        (nn.utils.spectral_norm, SpectralWeight, 3),
        (lambda layer: prune.identity(layer, "weight"), UnknownWeight, 0),
    ],
)
def test_each_kind_of_weight_has_its_class(
    wrap: Callable[[nn.Module], nn.Module], kind: type[Weight], stored: int
) -> None:
    weight = weight_of(wrap(nn.Conv2d(1, 2, 3)))
    assert type(weight) is kind and len(weight.stored) == stored
    assert weight_of(nn.ReLU()).reason_to_skip()


def test_a_normed_weight_whose_parts_are_pruned_is_skipped(gaussian: Fit) -> None:
    layer = nn.Sequential(old_style(torch.nn.utils.weight_norm, nn.Conv2d(1, 4, 3)), nn.Conv2d(4, 4, 3))
    prune.l1_unstructured(layer[0], "weight_v", 0.5)
    report = apply_(layer, gaussian(3), seed=0)
    assert report.initialized == ["1"] and "its weight is not a parameter, as under prune" in report.skipped["0"]


class Failing(nn.Module):
    """A parametrization that fails once it is registered: its inverse, or the weight of values other than the first."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error, self.first = error, None

    def forward(self, x: Tensor) -> Tensor:
        self.first = x.detach().clone() if self.first is None else self.first
        return x if self.error or torch.equal(x, self.first) else x * torch.inf

    def right_inverse(self, x: Tensor) -> Tensor:
        if self.error and self.first is not None:
            raise self.error
        return x


def test_a_lack_of_memory_is_no_reason_to_skip_a_layer() -> None:
    layer = nn.Conv2d(8, 8, 3)
    parametrize.register_parametrization(layer, "weight", Failing(MemoryError("no room")))
    with pytest.raises(MemoryError, match="no room"):
        apply_(nn.Sequential(layer, nn.Conv2d(8, 8, 3)), "tinyimagenet-3x3")


@pytest.mark.parametrize("dry_run", [True, False])
def test_numbers_that_share_memory_are_skipped_also_in_a_dry_run(dry_run: bool) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[0].weight = nn.Parameter(torch.randn(8, 8, 3, 1).expand(8, 8, 3, 3))
    report = apply_(model, "tinyimagenet-3x3", dry_run=dry_run)
    assert report.initialized == ["1"] and "one number in memory, as after expand: give it" in report.skipped["0"]


def test_a_weight_that_is_not_finite_once_it_is_written_is_an_error() -> None:
    layer = nn.Conv2d(8, 8, 3)
    parametrize.register_parametrization(layer, "weight", Failing())
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match=r"nothing was changed: .* its root mean square is (inf|nan), though"):
        apply_(layer, "tinyimagenet-3x3")
    assert torch.equal(layer.weight, before)
