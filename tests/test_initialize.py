"""`apply_`: which layers it chooses, what it draws, and that it writes all or nothing."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init import Gaussian, KernelDensity, KernelVAE, MixtureByDepth, apply_, save_prior

Fit = Callable[..., Gaussian]
Snapshot = Callable[[nn.Module], dict[str, bytes]]


class Broken(Gaussian):
    """A prior whose draw fails, or returns what no layer can take."""

    def __init__(self, size: int, draw: Callable[[int], Tensor]) -> None:
        super().__init__((1, size, size))
        self.draw = draw

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        return self.draw(n)


def network() -> nn.Sequential:
    """Has two 3×3 convolutions, a 5×5 one, a 1×1 one and three other layers."""
    stem = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4))
    body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3))
    return nn.Sequential(stem, body, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2))


def changed(model: nn.Module, before: dict[str, bytes], snapshot: Snapshot) -> set[str]:
    return {name for name, value in snapshot(model).items() if before[name] != value}


def fail(error: BaseException) -> Tensor:
    raise error


# --- which layers ---------------------------------------------------------------------------------------------------


def test_each_layer_takes_the_prior_of_its_kernel_size(gaussian: Fit, snapshot: Snapshot) -> None:
    model, vae = network(), KernelVAE((1, 5, 5), hidden=8, latent_dim=2)
    before = snapshot(model)
    report = apply_(model, [gaussian(3), vae])
    assert [(row.layer, row.prior) for row in report.drawn] == [
        ("0.0", "KernelVAE"),
        ("1.0", "Gaussian"),
        ("1.2", "Gaussian"),
    ]
    assert changed(model, before, snapshot) == {"0.0.weight", "1.0.weight", "1.2.weight"}
    assert report.skipped == {
        "0.1": "not a convolution",
        "2": "no prior given fits 1×1 kernels here",
        "4": "not a convolution",
    }
    assert report.unused == [] and not report.dry_run


@pytest.mark.parametrize("layers", [None, "1.2"])
def test_a_layer_takes_the_prior_of_its_depth(layers: str | None) -> None:
    """The 1×1 convolution does not count; a convolution that is not chosen does."""
    prior = MixtureByDepth((1, 3, 3), (0.0, 0.4, 0.8), (1, 1, 1))
    for mixture, value in zip(prior.mixtures, (1.0, 2.0, 3.0), strict=True):
        mixture.loc.fill_(value)
        mixture.scale_tril.mul_(1e-3)
    model = network()
    apply_(model, prior, layers=layers, scale="prior", seed=0)
    torch.testing.assert_close(model[1][2].weight, torch.full_like(model[1][2].weight, 3), atol=0.01, rtol=0)  # depth 1
    if layers is None:
        torch.testing.assert_close(model[1][0].weight, torch.full_like(model[1][0].weight, 2), atol=0.01, rtol=0)  # ½


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ["1.0", "1.2"]),
        ("*", ["1.0", "1.2"]),
        ("1.[12]", ["1.2"]),
        (["1.2", "1.0"], ["1.0", "1.2"]),
        (iter(["1.0"]), ["1.0"]),
        (lambda name, module: isinstance(module, nn.ConvTranspose2d), ["1.2"]),
        (lambda name, module: name == "1.0", ["1.0"]),
    ],
)
def test_layers_narrows_the_choice(layers: object, expected: list[str], gaussian: Fit, snapshot: Snapshot) -> None:
    model = network()
    before = snapshot(model)
    report = apply_(model, gaussian(3), layers=layers)
    assert report.initialized == expected
    assert changed(model, before, snapshot) == {f"{name}.weight" for name in expected}
    for name in {"1.0", "1.2"} - set(expected):
        assert report.skipped[name] == "not among the layers asked for"


def test_first_matching_pattern_that_fits_wins(gaussian: Fit) -> None:
    first, second, other = gaussian(3), gaussian(3), gaussian(5)
    first.details["name"], second.details["name"] = "first", "second"
    report = apply_(network(), {"1.0": [other, first], "1.*": second, "0.*": other})
    assert {row.layer: row.prior for row in report.drawn} == {"0.0": "Gaussian", "1.0": "first", "1.2": "second"}
    report = apply_(network(), {"1.*": second, "1.0": first})
    assert {row.prior for row in report.drawn} == {"second"}
    assert report.unused == ["first"]


def test_names_with_brackets_match_themselves(gaussian: Fit) -> None:
    model = nn.Sequential()
    for name in ("block[0]", "block0"):
        model.add_module(name, nn.Conv2d(1, 2, 3))
    assert apply_(model, gaussian(3), layers="block[0]").initialized == ["block[0]", "block0"]
    assert apply_(model, {"block[[]0]": gaussian(3)}).initialized == ["block[0]"]


@pytest.mark.parametrize("prior", [lambda prior: prior, lambda prior: {"": prior}, lambda prior: iter([prior])])
def test_model_may_be_a_single_layer(prior: Callable[[Gaussian], object], gaussian: Fit) -> None:
    report = apply_(nn.Conv2d(1, 2, 3), prior(gaussian(3)), layers="")
    assert report.initialized == [""] and report.skipped == {}


def test_strict_accepts_a_complete_choice_only(gaussian: Fit, snapshot: Snapshot) -> None:
    model, three = network(), gaussian(3)
    before = snapshot(model)
    with pytest.raises(
        ValueError, match=r"strict: 0.0: no prior given fits 5×5 kernels here; resize=True .*; add a prior, narrow"
    ):
        apply_(model, three, strict=True)
    with pytest.raises(ValueError, match=r"strict: no layer took 'Gaussian'; .* or leave strict off"):
        apply_(model, [three, gaussian(5), gaussian(7)], strict=True)
    assert snapshot(model) == before
    assert apply_(model, three, strict=True, layers="1.*").initialized == ["1.0", "1.2"]
    assert apply_(model, [three, gaussian(5)], strict=True).initialized == ["0.0", "1.0", "1.2"]


def test_strict_minds_only_the_layers_asked_for(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="strict: 0: Conv1d: priors are over 2-D kernels; add a prior"):
        apply_(model, gaussian(3), strict=True)
    assert apply_(model, gaussian(3), strict=True, layers="1").skipped == {"0": "not among the layers asked for"}


# --- bad input ------------------------------------------------------------------------------------------------------


class Elsewhere(torch.Generator):
    """A generator that says it is on another device."""

    device = torch.device("cuda", 0)


BAD = [
    (TypeError, {"model": "resnet"}, "model must be a torch.nn.Module; got str"),
    (TypeError, {"model": nn.Conv2d}, "model must be a torch.nn.Module; got type"),
    (ValueError, {"scale": "he"}, "scale must be one of 'fan_in', 'prior'; got 'he'"),
    (TypeError, {"noise": 0.1}, "noise must be True or False; got 0.1"),
    (TypeError, {"seed": 1.5}, "seed must be an int; got 1.5"),
    (TypeError, {"seed": True}, "seed must be an int; got True"),
    (TypeError, {"generator": 3}, "generator must be a torch.Generator; got int"),
    (ValueError, {"noise": False}, "noise=False has no effect: Gaussian has no noise step that could be left out"),
    (ValueError, {"noise": False, "dry_run": True}, "noise=False has no effect"),
    (
        ValueError,
        {"generator": Elsewhere()},
        r"generator is on cuda:0, but layer '1.0' is on cpu; make one with torch.Generator\('cpu'\), or give seed=",
    ),
    (ValueError, {"seed": 3, "generator": torch.Generator()}, "give seed=3 or generator=..., not both"),
    (TypeError, {"prior": 3}, "a prior is a name, a folder, a Prior, several of those, or a mapping .*; got 3"),
    (TypeError, {"prior": [3]}, "a prior's name or folder is a str or a Path; got int"),
    (TypeError, {"prior": {"*": None}}, "a prior is a name, .*; got None"),
    (TypeError, {"prior": {3: "x"}}, "prior maps patterns of layer names, each a str, to priors; got the key 3"),
    (ValueError, {"prior": []}, r"prior gives no prior for the layers '\*'; name one, such as 'notmnist-7x7'"),
    (ValueError, {"prior": {}}, r"prior is empty \({}\); name at least one, such as 'notmnist-7x7'"),
    (ValueError, {"prior": "nosuch"}, "no prior and no folder is called 'nosuch'"),
    (TypeError, {"layers": 3}, "layers is a pattern, several, or a predicate of name and module; got 3"),
    (TypeError, {"layers": ["*", 3]}, "layers is a pattern, .*; got 3 in it"),
    (TypeError, {"layers": nn.Conv2d(1, 2, 3)}, r"layers is a pattern, .*; got Conv2d\(1, 2"),
    (
        ValueError,
        {"layers": "0"},
        r"layers='0' matches no convolution; there are 0.0, 1.0, 1.2, 2; did you mean '0\.\*'\?$",
    ),
    (ValueError, {"layers": "stem"}, "layers='stem' matches no convolution; there are 0.0, 1.0, 1.2, 2$"),
    (ZeroDivisionError, {"layers": lambda name, module: 1 / 0}, "division by zero"),
    (ValueError, {"layers": []}, "no layer can be initialised: .*; 0.0, 1.0, 1.2, … 1 more: not among the layers"),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), BAD)
def test_helpful_errors(
    kind: type[Exception], arguments: dict[str, object], message: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model, state = network(), torch.get_rng_state()
    before = snapshot(model)
    with pytest.raises(kind, match=message):
        apply_(**{"model": model, "prior": gaussian(3), **arguments})
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_priors_that_clash_or_match_nothing_are_errors(gaussian: Fit) -> None:
    three, five = gaussian(3), gaussian(5)
    with pytest.raises(
        ValueError, match="'Gaussian' and 'Gaussian' are both for 3×3 kernels; keep one, or give a mapping"
    ):
        apply_(network(), [three, three])
    with pytest.raises(
        ValueError, match=r"pattern 'head.\*' of prior= matches no convolution; there are 0.0, 1.0, 1.2, 2$"
    ):
        apply_(network(), {"*": three, "head.*": five})
    with pytest.raises(ValueError, match=r"prior gives no prior for the layers '0.*'; name one"):
        apply_(network(), {"0.*": [], "1.*": three})
    with pytest.raises(ValueError, match=r"layers='stem' matches no convolution; there are \(model\)$"):
        apply_(nn.Conv2d(1, 2, 3), three, layers="stem")


def test_long_lists_of_layers_are_cut_and_a_pattern_is_suggested(gaussian: Fit) -> None:
    model = nn.ModuleDict({"features": nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(22)))})
    there = r"there are features.0, .*, features.4, …, and 17 more; did you mean 'features\.\*'\?$"
    with pytest.raises(ValueError, match=f"layers='features' matches no convolution; {there}"):
        apply_(model, gaussian(3), layers="features")
    with pytest.raises(ValueError, match=f"pattern 'features' of prior= matches no convolution; {there}"):
        apply_(model, {"features": gaussian(3)})


def test_no_layer_at_all_says_what_is_needed_and_what_is_there(gaussian: Fit) -> None:
    seven = gaussian(7)
    seven.details["name"] = "notmnist-7x7"
    there = "the model has 5×5 (1 layer), 3×3 (2 layers), 1×1 (1 layer); 0.0: no prior given fits 5×5 kernels here"
    message = f"no layer can be initialised: none has 7×7 kernels, as 'notmnist-7x7' needs; {there}"
    with pytest.raises(ValueError, match=re.escape(message)):
        apply_(network(), seven)
    with pytest.raises(
        ValueError, match=r"none has 7×7 kernels, as 'notmnist-7x7' needs; the model has no convolution$"
    ):
        apply_(nn.Linear(2, 2), seven)


# --- all or nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "kind", "message"),
    [
        (
            lambda n: torch.full((n, 9), torch.nan),
            ValueError,
            "the prior 'Broken' drew kernels of root mean square nan",
        ),
        (
            lambda n: torch.full((n, 9), torch.inf),
            ValueError,
            "the prior 'Broken' drew kernels of root mean square inf",
        ),
        (lambda n: torch.zeros(n, 9), ValueError, "drew kernels of root mean square 0.0; fit it anew"),
        (lambda n: torch.ones(n, 8), RuntimeError, "expanded size"),
        (lambda n: fail(torch.OutOfMemoryError("full")), RuntimeError, "full"),
        (lambda n: fail(UnicodeDecodeError("utf8", b"", 0, 1, "odd")), ValueError, "odd"),
        (lambda n: fail(KeyError("missing")), RuntimeError, "missing"),
    ],
)
def test_failed_draw_changes_nothing(
    draw: Callable[[int], Tensor], kind: type[Exception], message: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = network()
    before = snapshot(model)
    with pytest.raises(kind, match=f"nothing was changed: layer '1.0' could not be drawn: .*{message}"):
        apply_(model, [gaussian(5), Broken(3, draw)])
    assert snapshot(model) == before


def _expanded(layer: nn.Conv2d) -> None:
    layer.weight = nn.Parameter(torch.ones(1, 1, 3, 3).expand(layer.weight.shape))


def _inferred(layer: nn.Conv2d) -> None:
    with torch.inference_mode():
        layer.weight = nn.Parameter(torch.ones(layer.weight.shape))


@pytest.mark.parametrize("name", ["1.0", "1.2"])
@pytest.mark.parametrize(
    ("spoil", "message"), [(_expanded, "refers to a single memory location"), (_inferred, "inference tensor")]
)
def test_weight_that_cannot_be_written_changes_nothing(
    spoil: Callable[[nn.Conv2d], None], message: str, name: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = network()
    spoil(model.get_submodule(name))
    before = snapshot(model)
    with pytest.raises(RuntimeError, match=f"nothing was changed: layer '{name}' could not be written: .*{message}"):
        apply_(model, [gaussian(3), gaussian(5)])
    assert snapshot(model) == before


@pytest.mark.parametrize("error", [RuntimeError("disk"), TypeError("type"), KeyboardInterrupt()])
def test_write_that_stops_midway_is_undone(
    error: BaseException, gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, wrote = network(), Tensor.copy_, []
    weights = {id(weight) for weight in model.parameters()}

    def copy_(self: Tensor, other: Tensor, **options: bool) -> Tensor:
        real(self, other, **options)
        if id(self) in weights:
            wrote.append(self)
            if len(wrote) == 2:  # when the tensor is already overwritten
                raise error
        return self

    before = snapshot(model)
    monkeypatch.setattr(Tensor, "copy_", copy_)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RuntimeError):
        apply_(model, gaussian(3))
    assert len(wrote) == 4  # two written, two put back
    assert snapshot(model) == before


class Fragile(nn.Module):
    """A parametrization whose forward pass fails on the weights of a draw."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() and x.flatten()[0] != 1:
            raise KeyError("fragile")
        return x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


def test_weight_that_cannot_be_read_afterwards_is_put_back(gaussian: Fit, snapshot: Snapshot) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 4, 3)), nn.Conv2d(4, 4, 3))
    nn.init.ones_(model[1].weight)
    parametrize.register_parametrization(model[1], "weight", Fragile())
    before, plain = snapshot(model), model[0].weight
    with pytest.raises(RuntimeError, match="nothing was changed: layer '1' could not be written: 'fragile'"):
        apply_(model, gaussian(3))
    assert snapshot(model) == before and model[0].weight is plain


def test_undo_goes_on_whatever_the_tensors_raise(
    gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = network(), Tensor.copy_
    spoiled = model[1][0].weight

    def copy_(self: Tensor, other: Tensor, **options: bool) -> Tensor:
        return fail(TypeError("never")) if self is spoiled else real(self, other, **options)

    before = snapshot(model)
    monkeypatch.setattr(Tensor, "copy_", copy_)
    with pytest.raises(RuntimeError, match=r"nothing was changed: layer '1\.0' could not be written: never"):
        apply_(model, gaussian(3))
    monkeypatch.undo()
    assert snapshot(model) == before


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_drawn_weights_have_the_mean_and_covariance_of_the_kernels_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    mix, loc = torch.randn(9, 9, generator=generator), torch.randn(9, generator=generator)
    prior = Gaussian((1, 3, 3))
    prior.fit_((loc + torch.randn(20_000, 9, generator=generator) @ mix).view(-1, 1, 3, 3))
    layer = nn.Conv2d(64, 512, 3)
    apply_(layer, prior, scale="prior", seed=0)
    kernels = layer.weight.detach().flatten(0, 1).flatten(1)
    covariance = mix.T @ mix
    unit = covariance.diag().sqrt()
    assert ((kernels.mean(0) - loc) / unit).abs().max() < 0.05
    assert ((kernels.T.cov() - covariance) / torch.outer(unit, unit)).abs().max() < 0.06
    filters = layer.weight.detach().mean(1).flatten(1)  # independent kernels: the mean of 64 has 1/64 of the variance
    assert filters.var(0).sum() / unit.square().sum() == pytest.approx(1 / 64, rel=0.15)


def test_scale_changes_the_size_of_a_draw_only(gaussian: Fit) -> None:
    he, own = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    prior = gaussian(3)
    apply_(own, prior, seed=0, scale="prior")
    apply_(he, prior, seed=0)
    own_rms = own.weight.square().mean().sqrt()
    torch.testing.assert_close(he.weight / he.weight.square().mean().sqrt(), own.weight / own_rms)
    expected = (prior.whitening.scale.square().mean() + prior.whitening.loc.square().mean()).sqrt()
    assert own_rms.item() == pytest.approx(expected.item(), rel=0.1)


def test_without_noise_a_vae_gives_its_decoders_mean() -> None:
    torch.manual_seed(0)
    prior, layer, noisy = KernelVAE((1, 5, 5), hidden=8, latent_dim=2), nn.Conv2d(4, 64, 5), nn.Conv2d(4, 64, 5)
    apply_(layer, prior, scale="prior", noise=False, generator=torch.Generator().manual_seed(3))
    apply_(noisy, prior, scale="prior", generator=torch.Generator().manual_seed(3))
    z = torch.randn(256, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(layer.weight.detach().view(256, 25), prior.decode(z).loc.detach())
    assert layer.weight.var() < 0.5 * noisy.weight.var()


def test_noise_may_be_left_out_where_one_of_the_priors_has_some(gaussian: Fit) -> None:
    priors = [KernelVAE((1, 5, 5), hidden=8, latent_dim=2), gaussian(3)]
    assert apply_(network(), priors, noise=False).initialized == ["0.0", "1.0", "1.2"]
    with pytest.raises(ValueError, match="noise=False has no effect: Gaussian has no noise step"):
        apply_(network(), priors, noise=False, layers="1.*")


@pytest.mark.parametrize(("groups", "outputs"), [(1, 8), (2, 12), (1, 36), (1, 60), (4, 4), (4, 8)])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_orthogonal_channels_are_the_nearest_to_the_draw(kind: type, groups: int, outputs: int, gaussian: Fit) -> None:
    layer = kind(4, outputs, 3, groups=groups)

    def by_group(orthogonal: bool) -> Tensor:
        apply_(layer, gaussian(3), seed=0, orthogonal=orthogonal)
        weight = layer.weight.detach()
        if kind is nn.ConvTranspose2d:
            weight = weight.reshape(groups, 4 // groups, -1, 3, 3).transpose(1, 2)
        return weight.reshape(groups, outputs // groups, -1)

    drawn, found = by_group(orthogonal=False).double(), by_group(orthogonal=True)
    rows, taps = drawn.shape[1:]
    nearest = drawn - drawn.mean(2, keepdim=True)
    if groups == 4:  # of one input each
        nearest = nearest / nearest.norm(dim=2, keepdim=True)
    elif rows < taps:
        left, _, right = torch.linalg.svd(nearest, full_matrices=False)
        nearest = left @ right  # the polar factor
    scale = drawn.square().mean().sqrt() / nearest.square().mean().sqrt()
    torch.testing.assert_close(found, (nearest * scale).float(), atol=1e-5, rtol=1e-4)


def test_orthogonal_channels_keep_the_priors_scale_if_asked(gaussian: Fit) -> None:
    layer = nn.Conv2d(4, 8, 3)
    plain = apply_(layer, gaussian(3), seed=0, scale="prior").drawn[0].rms_after
    assert apply_(layer, gaussian(3), seed=0, scale="prior", orthogonal=True).drawn[0].rms_after == pytest.approx(plain)


def test_orthogonal_channels_of_draws_that_are_partly_zero_stay_finite() -> None:
    kernels = torch.cat([torch.zeros(3, 1, 3, 3), torch.randn(3, 1, 3, 3)])
    prior, layer = KernelDensity((1, 3, 3), 6).fit_(kernels), nn.Conv2d(64, 64, 3, groups=64)
    apply_(layer, prior, noise=False, orthogonal=True, seed=0)
    weight = layer.weight.detach().flatten(1)
    assert weight.isfinite().all() and 0 < (weight.norm(dim=1) == 0).sum() < 64
    torch.testing.assert_close(weight.mean(1), torch.zeros(64), atol=1e-6, rtol=0)
    norms = weight.norm(dim=1)
    torch.testing.assert_close(norms[norms > 0], norms.max().expand(int((norms > 0).sum())))


def test_orthogonal_channels_stay_within_what_the_prior_draws(gaussian: Fit) -> None:
    """Resized kernels of two inputs span 18 dimensions of 98, 17 without their mean: what is nearest does too."""
    layer = nn.Conv2d(2, 32, 7)
    apply_(layer, gaussian(3), resize=True, seed=0)
    basis = torch.linalg.svd(layer.weight.detach().flatten(1).double()).Vh[:18]
    apply_(layer, gaussian(3), resize=True, orthogonal=True, seed=0)
    weight = layer.weight.detach().flatten(1).double()
    outside = weight - weight @ basis.T @ basis
    assert outside.square().sum() < 1e-9 * weight.square().sum()
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(values[:17], values[:1].expand(17), rtol=1e-5, atol=0)
    assert values[17] < 1e-4 * values[0]


def test_resize_passes_over_priors_without_a_plane_and_keeps_to_the_first_pattern(gaussian: Fit) -> None:
    point, three, seven = gaussian(1), gaussian(3), gaussian(7)
    for prior, name in ((point, "point"), (three, "three"), (seven, "seven")):
        prior.details["name"] = name
    assert apply_(nn.Conv2d(2, 2, 5), [point, three], resize=True).drawn[0].prior == "three, resized from 3×3"
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    rows = apply_(model, {"0": seven, "*": three}, resize=True).drawn
    assert [row.prior for row in rows] == ["seven, resized from 7×7", "three"]


def test_resize_gives_the_nearest_size_and_says_so(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 5), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, 11))
    three, seven = gaussian(3), gaussian(7)
    three.details["name"], seven.details["name"] = "three", "seven"
    with pytest.raises(ValueError, match="no prior given fits 5×5 kernels here; resize=True would take seven"):
        apply_(model, [three, seven])
    report = apply_(model, [three, seven], resize=True, seed=0)
    assert [(row.layer, row.prior) for row in report.drawn] == [
        ("0", "seven, resized from 7×7"),
        ("3", "seven, resized from 7×7"),
    ]
    assert {report.skipped["1"], report.skipped["2"]} == {
        "no prior given fits 1×1 kernels here",
        "no prior given fits 1×3 kernels here",
    }
    assert report.drawn[0].rms_after == pytest.approx((2 / 50) ** 0.5)


def test_resized_kernels_are_what_the_prior_draws_resampled() -> None:
    ramp = torch.arange(7.0).expand(1, 1, 7, 7)
    prior = Gaussian((1, 7, 7)).fit_(ramp + 1e-3 * torch.randn(500, 1, 7, 7))
    layer = nn.Conv2d(1, 1, 13)
    apply_(layer, prior, resize=True, scale="prior")
    middle = layer.weight.detach()[0, 0, 6, 3:10]
    torch.testing.assert_close(middle.diff(), middle.diff().mean().expand(6), atol=0.02, rtol=0)  # still a ramp
    assert layer.weight.square().mean().sqrt().item() == pytest.approx(ramp.square().mean().sqrt().item(), rel=0.01)


# --- randomness -----------------------------------------------------------------------------------------------------


def test_seed_depends_on_the_layers_name_alone(gaussian: Fit) -> None:
    prior, names = gaussian(3), ["a", "b", "c"]

    def draw(names: list[str], seed: int = 7) -> dict[str, Tensor]:
        model = nn.ModuleDict({name: nn.Conv2d(2, 4, 3) for name in names})
        apply_(model, prior, seed=seed)
        return {name: model[name].weight.detach() for name in names}

    first, reordered, other = draw(names), draw(["d", *reversed(names)]), draw(names, seed=8)
    for name in names:
        assert torch.equal(first[name], reordered[name])
        assert not torch.equal(first[name], other[name])
    assert not torch.equal(first["a"], first["b"])


def test_seed_may_be_what_counts_as_an_int(gaussian: Fit) -> None:
    first, second = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    apply_(first, gaussian(3), seed=7)
    apply_(second, gaussian(3), seed=torch.tensor(7))
    assert torch.equal(first.weight, second.weight)


def test_generator_or_the_global_state_reproduces_a_draw(gaussian: Fit) -> None:
    def draw(generator: torch.Generator | None) -> Tensor:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3))
        if generator is None:
            torch.manual_seed(5)
        apply_(model, gaussian(3), generator=generator)
        assert not torch.equal(model[0].weight.flatten(), model[1].weight.flatten())
        return torch.cat([layer.weight.detach().flatten() for layer in model])

    seeded = draw(torch.Generator().manual_seed(5))
    assert torch.equal(seeded, draw(torch.Generator().manual_seed(5)))
    assert torch.equal(seeded, draw(None))
    assert not torch.equal(seeded, draw(torch.Generator().manual_seed(6)))


@pytest.mark.parametrize("options", [{"seed": 1}, {"generator": torch.Generator()}, {"dry_run": True}])
def test_global_random_state_is_untouched(options: dict[str, object], tmp_path: Path) -> None:
    folder = save_prior(KernelVAE((1, 5, 5), network="paper", latent_dim=4), tmp_path / "mine")
    model, state = network(), torch.get_rng_state()
    for prior in (folder, str(folder)):
        assert apply_(model, prior, **options).drawn[0].prior == "mine"
    assert torch.equal(torch.get_rng_state(), state)


def test_dry_run_changes_nothing(gaussian: Fit, snapshot: Snapshot) -> None:
    model, generator = network(), torch.Generator()
    before, state = snapshot(model), generator.get_state()
    dry = apply_(model, gaussian(3), dry_run=True, generator=generator)
    assert snapshot(model) == before and torch.equal(generator.get_state(), state)
    real = apply_(model, gaussian(3))
    assert dry.dry_run and (dry.initialized, dry.skipped) == (real.initialized, real.skipped)
    assert [row.rms_before for row in dry.drawn] == [row.rms_before for row in real.drawn]
    assert {row.rms_after for row in dry.drawn} == {None}


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "surroundings", [lambda: torch.autocast("cpu", torch.bfloat16), float64_by_default, torch.inference_mode]
)
def test_draw_is_the_same_whatever_is_switched_on_around_it(
    surroundings: Callable[[], AbstractContextManager[None]], gaussian: Fit
) -> None:
    prior, plain, inside = gaussian(3), nn.Conv2d(1, 8, 3), nn.Conv2d(1, 8, 3)
    apply_(plain, prior, seed=0, scale="prior")
    with surroundings():
        apply_(inside, prior, seed=0, scale="prior")
    assert torch.equal(plain.weight, inside.weight)


class Watchful(Gaussian):
    """A Gaussian that says in which mode and type it was drawn from."""

    seen: ClassVar[list[tuple[bool, torch.dtype]]] = []

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        self.seen.append((self.training, self.whitening.loc.dtype))
        return super()._draw(n, generator, noise)


def test_prior_is_drawn_from_in_evaluation_mode_and_float32() -> None:
    apply_(nn.Conv2d(1, 2, 3, dtype=torch.float64), Watchful((1, 3, 3)).double().train())
    assert Watchful.seen == [(False, torch.float32)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_users_prior_stays_as_it_is(dtype: torch.dtype, snapshot: Snapshot) -> None:
    prior = KernelVAE((1, 5, 5), hidden=8, latent_dim=2).to(dtype).train()
    before = snapshot(prior)
    apply_(nn.Conv2d(1, 2, 5, dtype=torch.float16), prior)
    assert snapshot(prior) == before
    assert all(part.training for part in prior.modules())
    assert all(weight.requires_grad and weight.dtype == dtype for weight in prior.parameters())
