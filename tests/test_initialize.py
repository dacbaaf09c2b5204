"""`apply_`: its arguments, what it draws, and that it writes all or nothing."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init import Gaussian, KernelVAE, apply_, save_prior
from tests.models import Fit, Snapshot, network


class Broken(Gaussian):
    """A prior whose draw fails, or returns what no layer can take."""

    def __init__(self, size: int, draw: Callable[[int], Tensor]) -> None:
        super().__init__((1, size, size))
        self.draw = draw

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        return self.draw(n)


def fail(error: BaseException) -> Tensor:
    raise error


class Elsewhere(torch.Generator):
    """A generator that says it is on another device."""

    device = torch.device("cuda", 0)


BAD = [
    (TypeError, {"model": "resnet"}, "model must be a torch.nn.Module; got str"),
    (TypeError, {"model": nn.Conv2d}, "model must be a torch.nn.Module; got type"),
    (ValueError, {"scale": "he"}, "scale must be one of 'auto', 'keep', 'fan_in', 'prior'; got 'he'"),
    (TypeError, {"noise": 0.1}, "noise must be True or False; got 0.1"),
    (TypeError, {"strict": "no"}, "strict must be True or False; got 'no'"),
    (TypeError, {"dry_run": 1}, "dry_run must be True or False; got 1"),
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
        (lambda n: torch.zeros(n, 9), ValueError, "drew kernels of root mean square 0.0; fit it again"),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_a_draw_that_its_dtype_cannot_hold_is_refused(dtype: torch.dtype, gaussian: Fit) -> None:
    layer = nn.Conv2d(8, 8, 3)
    torch.nn.init.uniform_(layer.weight, -torch.finfo(dtype).max, torch.finfo(dtype).max)
    before = layer.to(dtype).weight.detach().clone()
    with pytest.raises(ValueError, match=f"could not be drawn: the draw reaches .* but {dtype} ends at "):
        apply_(layer, gaussian(3), seed=0)
    assert torch.equal(layer.weight.float(), before.float())


def _inferred(layer: nn.Conv2d) -> None:
    with torch.inference_mode():
        layer.weight = nn.Parameter(torch.rand(layer.weight.shape))


@pytest.mark.parametrize("name", ["1.0", "1.2"])
@pytest.mark.parametrize(("spoil", "message"), [(_inferred, "inference tensor")])
def test_weight_that_cannot_be_written_changes_nothing(
    spoil: Callable[[nn.Conv2d], None], message: str, name: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    model = network()
    spoil(model.get_submodule(name))
    before = snapshot(model)
    with pytest.raises(RuntimeError, match=f"nothing was changed: layer '{name}' could not be written: .*{message}"):
        apply_(model, [gaussian(3), gaussian(5)], layers=["*", name])
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
    assert len(wrote) == 2
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
    model[1].weight.data[0, 0, 0, 0] = 1
    parametrize.register_parametrization(model[1], "weight", Fragile())
    before, plain = snapshot(model), model[0].weight
    with pytest.raises(RuntimeError, match="nothing was changed: layer '1' could not be written: 'fragile'"):
        apply_(model, gaussian(3))
    assert snapshot(model) == before and model[0].weight is plain


def test_undo_continues_if_a_tensor_cannot_be_written(
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
    apply_(he, prior, seed=0, scale="fan_in")
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


def test_resized_kernels_are_what_the_prior_draws_resampled() -> None:
    ramp = torch.arange(7.0).expand(1, 1, 7, 7)
    prior = Gaussian((1, 7, 7)).fit_(ramp + 1e-3 * torch.randn(500, 1, 7, 7))
    layer = nn.Conv2d(1, 1, 13)
    apply_(layer, prior, resize=True, scale="prior")
    middle = layer.weight.detach()[0, 0, 6, 3:10]
    torch.testing.assert_close(middle.diff(), middle.diff().mean().expand(6), atol=0.02, rtol=0)  # still a ramp
    assert layer.weight.square().mean().sqrt().item() == pytest.approx(ramp.square().mean().sqrt().item(), rel=0.01)


def test_seed_depends_on_the_layers_name_alone(gaussian: Fit) -> None:
    prior, names = gaussian(3), ["a", "b", "c"]

    def draw(names: list[str], seed: int = 7) -> dict[str, Tensor]:
        model = nn.ModuleDict({name: nn.Conv2d(2, 4, 3) for name in names})
        apply_(model, prior, seed=seed, scale="prior")
        return {name: model[name].weight.detach() for name in names}

    first, reordered, other = draw(names), draw(["d", *reversed(names)]), draw(names, seed=8)
    for name in names:
        assert torch.equal(first[name], reordered[name])
        assert not torch.equal(first[name], other[name])
    assert not torch.equal(first["a"], first["b"])


def test_seed_may_be_what_counts_as_an_int(gaussian: Fit) -> None:
    first, second = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    apply_(first, gaussian(3), seed=7, scale="prior")
    apply_(second, gaussian(3), seed=torch.tensor(7), scale="prior")
    assert torch.equal(first.weight, second.weight)


def test_generator_or_the_global_state_reproduces_a_draw(gaussian: Fit) -> None:
    def draw(generator: torch.Generator | None) -> Tensor:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3))
        if generator is None:
            torch.manual_seed(5)
        apply_(model, gaussian(3), generator=generator, scale="prior")
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


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": float64_by_default,
    "inference_mode": torch.inference_mode,
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_surrounding_modes_do_not_change_a_draw(
    surroundings: Callable[[], AbstractContextManager[None]], wrap: Callable[[nn.Module], nn.Module]
) -> None:
    plain = wrap(nn.Conv2d(6, 8, 3))
    inside = copy.deepcopy(plain)
    apply_(plain, "natural", seed=0, layers="")
    with surroundings():
        apply_(inside, "natural", seed=0, layers="")
    assert all(map(torch.equal, plain.state_dict().values(), inside.state_dict().values()))


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
def test_the_prior_does_not_change(dtype: torch.dtype, snapshot: Snapshot) -> None:
    prior = KernelVAE((1, 5, 5), hidden=8, latent_dim=2).to(dtype).train()
    before = snapshot(prior)
    apply_(nn.Conv2d(1, 2, 5, dtype=torch.float16), prior)
    assert snapshot(prior) == before
    assert all(part.training for part in prior.modules())
    assert all(weight.requires_grad and weight.dtype == dtype for weight in prior.parameters())
