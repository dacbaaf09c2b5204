"""Which models are plain chains, and which of their layers pass their inputs on."""

import copy
import functools
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dwp_init import PriorSet, apply_
from dwp_init.chain import normalised, normalises, rectified
from tests.chains import (
    EVERYWHERE,
    Classifier,
    Doubled,
    Loud,
    Pair,
    Residual,
    Walked,
    conv,
    features,
    head,
    plain,
    shuffled,
)
from tests.models import Fit, old_style, responses


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (features, {"one", "inner.0"}),
        (lambda: Classifier(features()), {"features.one", "features.inner.0"}),
        (lambda: torch.compile(Classifier(features())), {"features.one", "features.inner.0"}),
        (lambda: nn.DataParallel(features()), {"one", "inner.0"}),
        (lambda: nn.Sequential(parametrizations.weight_norm(conv()), nn.ReLU(), conv(), nn.GELU(), head()), {"0", "2"}),
        (lambda: nn.Sequential(conv(), nn.Tanh(), conv(), nn.ReLU(), head()), {"2"}),
        (lambda: nn.Sequential(conv(), relu := nn.ReLU(), conv(), relu, conv(), relu, head()), {"0", "2", "4"}),
        (lambda: nn.Sequential(used := conv(), nn.ReLU(), conv(), nn.ReLU(), used, nn.ReLU(), head()), {"0", "2"}),
        (lambda: nn.Sequential(used := conv(), nn.Tanh(), conv(), nn.ReLU(), used, nn.ReLU(), head()), {"2"}),
        (lambda: nn.Sequential(used := conv(), nn.ReLU(), conv(), nn.ReLU(), used, head()), {"2"}),
        (lambda: nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.ReLU()), set()),
        (lambda: nn.Sequential(Residual(nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU())), conv()), set()),
        (lambda: nn.Sequential(conv(), nn.ReLU(), Residual(nn.Identity()), conv(), nn.ReLU()), set()),
        (lambda: nn.ModuleList([conv(), nn.ReLU(), conv(), nn.ReLU()]), set()),
        (lambda: Loud(conv(), nn.ReLU(), conv(), nn.ReLU()), set()),
        (lambda: nn.Sequential(conv(3), nn.ReLU(), patched(conv()), nn.ReLU(), nn.MaxPool2d(2)), set()),
        (lambda: Residual(plain()), set()),  # its outputs may be added to its inputs, once or many times
        (lambda: nn.DataParallel(Residual(nn.Sequential(plain(), nn.Identity()))), set()),
        (lambda: Residual(shuffled()), set()),
        (
            lambda: Residual(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.ReLU())),
            set(),
        ),  # a mask
        (lambda: Classifier(nn.Sequential(nn.PixelUnshuffle(2), *plain(2))), {"features.1", "features.3"}),
        (lambda: nn.Sequential(plain(2), nn.Flatten()), set()),  # a block that something outside may add to its inputs
        (lambda: nn.Sequential(plain(2, head()), nn.Flatten()), {"0.0", "0.2"}),  # nothing but a sequence around it
        (conv, set()),
        (nn.ReLU, set()),
    ],
)
def test_rectified(make: Callable[[], nn.Module], expected: set[str]) -> None:
    assert rectified(make()).all == expected


def patched(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution of which a single object computes something else, as those that tile images do."""
    layer._conv_forward = lambda x, *weights: x + type(layer)._conv_forward(layer, x, *weights)
    return layer


def residual(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return inputs[0] + output


@pytest.mark.parametrize(
    ("name", "register"),
    [
        ("", lambda module: module.register_forward_hook(residual)),
        ("inner", lambda module: module.register_forward_hook(residual)),
        ("inner.0", lambda module: module.register_forward_hook(lambda *passed: None)),  # who knows
        ("inner.0", lambda module: module.register_forward_pre_hook(lambda module, inputs: (10 * inputs[0],))),
        ("relu", lambda module: module.register_forward_hook(functools.partial(residual))),
    ],
)
def test_hooks_on_any_module_of_a_chain_keep_its_scales_and_a_note_says_so(
    name: str, register: Callable[[nn.Module], object], gaussian: Fit
) -> None:
    torch.manual_seed(0)
    model = features()
    register(model.get_submodule(name))
    before = responses(model)
    assert rectified(model)[:3] == (set(), set(), (name,))
    (note,) = apply_(model, PriorSet(dense=(gaussian(3),), dirac=True)).notes
    assert note.startswith(f"hooks of {name or '(model)'} may change what passes through the chain, so that its")
    assert responses(model) == pytest.approx(before, rel=1e-4)
    assert apply_(model, gaussian(3)).notes == []  # no layer has PyTorch's default scale any more


def test_hooks_of_torch_change_nothing() -> None:
    model = features()
    model.inner[0] = old_style(nn.utils.weight_norm, model.inner[0])
    assert rectified(model).all == {"one", "inner.0"}


def test_a_network_that_adds_its_residual_again_and_again_stays_as_large(gaussian: Fit) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[Residual(plain(5))] * 10)  # one module, ten times
    x = torch.randn(2, 8, 12, 12)
    with torch.no_grad():
        before = model(x).std().item()
        apply_(model, PriorSet(dense=(gaussian(3),), dirac=True), seed=0)
        assert model(x).std().item() == pytest.approx(before, rel=0.2)


@pytest.mark.parametrize(
    ("before", "behind", "returns"),
    [
        (nn.ReLU(), nn.ReLU(), True),
        (nn.ReLU(), nn.PReLU(), True),
        (nn.ReLU(), nn.GELU(), False),
        (nn.ReLU(), nn.ReLU6(), False),  # it returns at most 6
        (nn.ReLU6(), nn.ReLU6(), True),
        (nn.ReLU6(), nn.ELU(), True),
        (nn.LeakyReLU(), nn.LeakyReLU(), True),
        (nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), False),
        (nn.SiLU(), nn.ReLU(), False),
        (nn.ELU(), nn.ReLU(), False),
        (nn.Tanh(), nn.ReLU(), False),
        (nn.Identity(), nn.ReLU(), False),
    ],
)
def test_layers_between_rectifiers(before: nn.Module, behind: nn.Module, returns: bool) -> None:
    """Those that could be an identity: the rectifier behind must return what the one before does."""
    model = nn.Sequential(conv(), before, nn.MaxPool2d(2), conv(), nn.Dropout(), behind, conv(), head())
    assert rectified(model).between == ({"3"} if returns else set())
    if returns:
        x = before(torch.randn(100))
        assert (behind(x) - x).norm() < 0.02 * x.norm()


def test_a_layer_that_is_used_twice_must_be_between_rectifiers_both_times() -> None:
    used, relu = conv(), nn.ReLU()
    assert rectified(nn.Sequential(conv(3), relu, used, relu, used, relu)).between == {"2"}
    assert rectified(nn.Sequential(used, relu, conv(), relu, used, relu, head())).between == {"2"}


def test_no_kernel_is_drawn_for_a_layer_whose_outputs_are_all_copies(gaussian: Fit) -> None:
    found = []
    for width in (8, 9):  # of the second layer
        model = nn.Sequential(conv(), nn.ReLU(), nn.Conv2d(8, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3))
        generator = torch.Generator().manual_seed(0)
        apply_(
            nn.Sequential(*model[:4], nn.Conv2d(width, 2, 1)),
            PriorSet(dense=(gaussian(3),), dirac=True),
            generator=generator,
        )
        found.append(generator.get_state())
    one = torch.Generator().manual_seed(0)
    apply_(conv(), gaussian(3), generator=one)
    assert torch.equal(found[0], one.get_state()) and not torch.equal(found[1], one.get_state())


def test_layers_of_a_chain_pass_their_inputs_on_if_their_set_says_so(gaussian: Fit) -> None:
    def draw(dirac: bool = True, model: nn.Module | None = None, **options: str) -> nn.Sequential:
        torch.manual_seed(0)
        made = model or nn.Sequential(
            *(conv(3), nn.ReLU(), conv(), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(12, 24, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(24, 8, 3), nn.GELU()),
            *(nn.ConvTranspose2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)),
        )
        prior = PriorSet(dense=(gaussian(3), gaussian(4)), depthwise=(gaussian(3),), dirac=dirac)
        report = apply_(made, prior, seed=0, **options)
        passing.append({row.layer: row.prior for row in report.drawn if row.prior.endswith("identity")})
        return made

    passing: list[dict[str, str]] = []
    model, plain = draw(), draw(dirac=False)
    copies = "Gaussian, 8 of 12 channels identity", "Gaussian, 12 of 24 channels identity"
    assert passing == [{"2": "identity", "5": copies[0], "7": copies[1]}, {}]
    x = torch.rand(2, 8, 9, 9)
    torch.testing.assert_close(model[2](x) - model[2].bias[:, None, None], x)
    torch.testing.assert_close((model[5](x) - model[5].bias[:, None, None])[:, :8], x)
    torch.testing.assert_close(model[5].weight[8:], plain[5].weight[8:])
    x = torch.rand(2, 12, 9, 9)
    by_group = (model[7](x) - model[7].bias[:, None, None]).unflatten(1, (4, 6))
    torch.testing.assert_close(by_group[:, :, :3].flatten(1, 2), x)
    draw(scale="keep"), draw(scale="fan_in"), draw(model=draw(dirac=False))  # the last is no longer PyTorch's default
    assert passing[2:] == [{}, {}, {}, {}]


def normed(*widths: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    pairs = itertools.pairwise(widths)
    layers = [(nn.Conv2d(*pair, 3, padding=1), nn.MaxPool2d(2), norm(pair[1]), nn.GELU()) for pair in pairs]
    return nn.Sequential(*(part for layer in layers for part in layer))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: normed(3, 8, 8), {"0", "4"}),
        (lambda: normed(3, 8, 8, norm=lambda width: nn.GroupNorm(2, width)), set()),
        (
            lambda: Classifier(nn.Sequential(nn.Sequential(conv(3), nn.GELU()), normed(8, 12, 8))),
            {"features.1.0", "features.1.4"},
        ),
        (lambda: Pair(nn.Sequential(conv(3), nn.GELU()), normed(8, 12, 10)), {"second.0", "second.4"}),
        (lambda: Pair(normed(3, 8), normed(8, 10)), {"first.0", "second.0"}),
        (lambda: Pair(normed(3, 8), normed(8, 8)), {"first.0"}),  # the outputs of the second may be added to its inputs
        (lambda: nn.ModuleList([normed(3, 8), normed(8, 10)]), set()),  # what runs it is not known
        (lambda: Pair(normed(3, 8), normed(3, 8)), set()),  # side by side, if it runs
        (lambda: Pair(normed(3, 8), Residual(normed(8, 12))), set()),  # it has a shortcut
        (lambda: Pair(conv(3), normed(8, 12)), set()),
        (lambda: Pair(normed(3, 8), normed(8, 3)), set()),  # a residual of images
        (lambda: Walked(normed(3, 8, 8)), set()),  # part by part
        (lambda: nn.Sequential(*(part for part in normed(3, 8, 8) if not isinstance(part, nn.MaxPool2d))), set()),
        (lambda: Residual(normed(8, 8)), set()),
        (lambda: normed(8, 8), set()),  # what is outside may add its outputs to its inputs
        (lambda: nn.Sequential(conv(3), nn.ReLU(), nn.BatchNorm2d(8)), set()),
        (lambda: nn.Sequential(conv(3), nn.ReLU(), conv()), set()),
        (lambda: nn.Sequential(conv(3), used := conv(), nn.BatchNorm2d(8), used), set()),
        (lambda: nn.Sequential(Doubled(3, 8, 3), nn.BatchNorm2d(8)), set()),
        (lambda: Loud(*normed(3, 8)), set()),
    ],
)
def test_normalised(make: Callable[[], nn.Module], expected: set[str]) -> None:
    model = make()
    assert normalised(model) == expected
    model.register_forward_hook(residual)
    assert normalised(model) == (set() if expected == {"0", "4"} else expected)


def test_identities_of_an_author_stay_where_draws_would_be_normalised_too() -> None:
    model = nn.Sequential(conv(3), nn.BatchNorm2d(8), nn.ReLU(), *normed(*[8] * 6), nn.Conv2d(8, 9, 1))
    dirac = [layer for layer in model[3:-1] if isinstance(layer, nn.Conv2d)]
    for layer in dirac:
        nn.init.dirac_(layer.weight)
    report = apply_(model, "natural", seed=0)
    assert report.initialized == ["0"]
    assert all("copies of others, as after dirac_" in report.skipped[str(3 + 4 * place)] for place in range(5))
    assert all(layer.weight.count_nonzero() == 8 for layer in dirac)


@pytest.mark.parametrize("fill", [lambda weight: None, nn.init.kaiming_normal_])
def test_layers_that_are_normalised_pass_their_inputs_on_and_keep_their_response(
    fill: Callable[[Tensor], object], gaussian: Fit
) -> None:
    torch.manual_seed(0)
    model = normed(3, 8, 12, 12)
    for layer in model[::4]:
        fill(layer.weight)
    before = responses(model)
    prior = PriorSet(dense=(gaussian(3),), dirac=True)
    report = apply_(model, prior, seed=0)
    assert [row.prior for row in report.drawn] == ["Gaussian", "Gaussian, 8 of 12 channels identity", "identity"]
    assert responses(model) == pytest.approx(before, rel=1e-4)
    x = torch.randn(2, 8, 6, 6)
    passed = nn.functional.conv2d(x, model[4].weight, padding=1)[:, :8]
    torch.testing.assert_close(passed, x * passed.std() / x.std(), rtol=1e-3, atol=1e-5)
    first = copy.deepcopy(model)
    apply_(model, prior, seed=0)
    for expected, found in zip(first.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert not any("identity" in row.prior for row in apply_(normed(3, 8, 12), prior, scale="keep").drawn)
    rows = apply_(normed(3, *[8] * 7), prior).drawn  # three in a row
    assert [row.prior for row in rows] == ["Gaussian", *["identity"] * 3, "Gaussian", *["identity"] * 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_second_call_draws_what_a_first_one_would(dtype: torch.dtype) -> None:
    """Also the layers that look as if made by hand: copies of the inputs, and small whitening filters when rounded."""
    torch.manual_seed(0)
    widths = [(3, 12), (12, 12), (12, 30), (30, 30)]
    chain = nn.Sequential(*(part for pair in widths for part in (nn.Conv2d(*pair, 3), nn.ReLU())))
    mixer = nn.Sequential(nn.Conv2d(1, 8, 2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 7, groups=8))
    for model in (chain, mixer, nn.Conv2d(1, 6, 2), nn.Conv3d(1, 8, (1, 2, 2))):
        once, twice = model.to(dtype), copy.deepcopy(model)
        apply_(twice, "natural", seed=1)
        rows = [apply_(each, "natural", seed=2).drawn for each in (once, twice)]
        assert [(row.layer, row.prior) for row in rows[0]] == [(row.layer, row.prior) for row in rows[1]]
        for expected, found in zip(once.parameters(), twice.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_copies_that_an_author_made_stay() -> None:
    """Frozen ones, those outside a plain chain, and those that leave other outputs at zero."""
    model = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())
    for layer in (model[2], model[4]):
        nn.init.dirac_(layer.weight)
    assert apply_(model, "natural").initialized == ["0", "2"]  # the third has 8 outputs of zero
    assert torch.equal(model[2].weight, nn.init.dirac_(torch.empty(8, 8, 3, 3)))
    assert apply_(model, "natural", scale="keep").initialized == ["0"]
    assert apply_(nn.Sequential(*model, nn.BatchNorm2d(16)), EVERYWHERE).initialized == ["0"]
    model[2].requires_grad_(False)
    assert apply_(model, "natural").initialized == ["0"]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm2d(2), True),
        (nn.LocalResponseNorm(2), True),
        (nn.Conv2d(1, 1, 1), False),
        (parametrizations.weight_norm(nn.Conv2d(1, 1, 1)).parametrizations.weight[0], False),
        (type("Normalize", (nn.Module,), {})(), False),
    ],
)
def test_normalises(module: nn.Module, expected: bool) -> None:
    assert normalises(module) == expected
