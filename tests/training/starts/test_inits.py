import math
import sys
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init import KernelDensity, apply_
from dwp_init.convolutions import he_rms
from training.networks.modern import ConvMixer, ConvNeXt, MobileNet, ResNet
from training.networks.paper import CIFARNet
from training.starts.inits import (
    BY_BATCH,
    DELTA,
    DWP,
    DWP_CENTRED,
    DWP_LSUV,
    DWP_ORTHOGONAL,
    FROM_LEARNED,
    GAUSSIAN,
    INITS,
    KAIMING,
    LEARNED,
    LSUV,
    NOISE,
    ORTHOGONAL,
    activation_scale,
    channel_rank,
    effective_rank,
    initialize_,
    kind_of,
    spatial_convolutions,
)

UNFIT_FOR_PATCHES = (DWP, DWP_ORTHOGONAL, DWP_CENTRED, *FROM_LEARNED)  # of 2×2 kernels
OF_FREE_SCALE = ("PyTorch default", KAIMING, "Xavier", *BY_BATCH)
WITHOUT_BATCH = tuple(init for init in INITS if init not in BY_BATCH)


def _kernels(k: int, n: int = 40) -> Tensor:
    return torch.randn(n, 1, k, k, generator=torch.Generator().manual_seed(k)).cumsum(-1)


def _prior(k: int) -> KernelDensity:
    return KernelDensity((1, k, k), 40).fit_(_kernels(k))


PRIORS = [_prior(k) for k in (7, 5, 3)]
LEARNED_KERNELS = {
    (kind, k): {0.0: _kernels(k), 1.0: -_kernels(k)} for kind in ("dense", "depthwise") for k in (7, 5, 3)
}
NETWORKS = {
    "cifar": lambda: CIFARNet((6, 8, 8)),
    "resnet": lambda: ResNet((4, 8), blocks=1),
    "convmixer": lambda: ConvMixer((6,), blocks=2),
    "convnext": lambda: ConvNeXt((6, 8), blocks=1),
    "mobilenet": lambda: MobileNet((4, 6, 8), blocks=1),
}


@pytest.fixture(autouse=True)
def images() -> Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _made(network: str, init: str, images: Tensor, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    made = NETWORKS[network]()
    before = torch.get_rng_state()
    initialize_(made, init, seed, priors=PRIORS, learned=LEARNED_KERNELS, batch=images)
    assert torch.equal(torch.get_rng_state(), before)
    return made


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("init", INITS)
def test_only_spatial_kernels_differ_and_by_the_seed(network: str, init: str, images: Tensor) -> None:
    if init in BY_BATCH:
        pytest.importorskip("lsuv")
    base, kaiming, made, again = (_made(network, each, images) for each in ("PyTorch default", KAIMING, init, init))
    other = _made(network, init, images, seed=1)
    spatial = {f"{name}.weight" for name, layer in spatial_convolutions(made).items() if layer.kernel_size[0] > 2}
    patches = {f"{name}.weight" for name, layer in spatial_convolutions(made).items() if layer.kernel_size[0] == 2}
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        changed = not torch.equal(value, base.state_dict()[name])
        if name not in patches:
            assert changed == (init != "PyTorch default" and name in spatial)
        elif init in UNFIT_FOR_PATCHES:
            assert torch.equal(value, kaiming.state_dict()[name])
    assert all(not torch.equal(made.state_dict()[name], other.state_dict()[name]) for name in spatial)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("init", [init for init in INITS if init not in OF_FREE_SCALE])
def test_the_root_mean_square_is_hes(network: str, init: str, images: Tensor) -> None:
    for layer in spatial_convolutions(_made(network, init, images)).values():
        if layer.kernel_size[0] > 2:
            assert layer.weight.square().mean().sqrt().item() == pytest.approx(he_rms(layer), rel=1e-4)


def test_the_laws_of_kaiming_and_xavier(images: Tensor) -> None:
    layer = nn.Sequential(nn.Conv2d(64, 32, 3))
    for init, variance in {KAIMING: 2 / (64 * 9), "Xavier": 2 / (96 * 9)}.items():
        initialize_(layer, init, 0)
        assert layer[0].weight.var().item() == pytest.approx(variance, rel=0.03)


def test_white_noise_is_no_copy_of_kaimings_draw(images: Tensor) -> None:
    noise, kaiming = (_made("cifar", init, images).features.conv2.weight.flatten() for init in (NOISE, KAIMING))
    assert abs(F.cosine_similarity(noise, kaiming, dim=0).item()) < 0.1


@pytest.mark.parametrize(
    ("init", "out", "into"), [(ORTHOGONAL, 8, 4), (ORTHOGONAL, 40, 2), (DWP_ORTHOGONAL, 8, 4), (DWP_ORTHOGONAL, 16, 2)]
)
def test_orthogonal_gram_matrices(out: int, into: int, init: str) -> None:
    layer = nn.Sequential(nn.Conv2d(into, out, 3))
    initialize_(layer, init, 0, priors=PRIORS)
    matrix = layer[0].weight.detach().flatten(1)
    gram = matrix @ matrix.T if out <= into * 9 else matrix.T @ matrix
    scale = layer[0].weight.square().sum() / len(gram)
    torch.testing.assert_close(gram, scale * torch.eye(len(gram)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [3, 7])
def test_delta_orthogonal_keeps_norms(k: int) -> None:
    layer = nn.Conv2d(4, 6, k, padding="same", padding_mode="circular", bias=False)
    initialize_(nn.Sequential(layer), DELTA, 0)
    x = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    gain = math.sqrt(2 * 6 / 4)  # He's: mean squares double from input to output channel
    torch.testing.assert_close(layer(x).flatten(1).norm(dim=1), gain * x.flatten(1).norm(dim=1))
    taps = layer.weight.detach().clone()
    taps[:, :, k // 2, k // 2] = 0
    assert not taps.any()


@pytest.mark.parametrize(("into", "out", "groups"), [(6, 4, 1), (6, 6, 6), (4, 8, 2)])
def test_where_delta_orthogonal_cannot_be_it_is_orthogonal(into: int, out: int, groups: int) -> None:
    layer = nn.Sequential(nn.Conv2d(into, out, 3, groups=groups))
    initialize_(layer, DELTA, 0)
    assert (layer[0].weight != 0).all()


def test_dwp_is_what_apply_draws(images: Tensor) -> None:
    torch.manual_seed(3)
    expected = NETWORKS["mobilenet"]()
    apply_(expected, PRIORS, seed=3)
    found = _made("mobilenet", DWP, images, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))


def test_centred_kernels_have_no_mean_and_else_are_as_dwp_draws(images: Tensor) -> None:
    for (name, plain), centred in zip(
        spatial_convolutions(_made("mobilenet", DWP, images)).items(),
        spatial_convolutions(_made("mobilenet", DWP_CENTRED, images)).values(),
        strict=True,
    ):
        expected = plain.weight - plain.weight.mean((2, 3), keepdim=True)
        found = centred.weight.flatten()
        assert F.cosine_similarity(found, expected.flatten(), dim=0).item() == pytest.approx(1, abs=1e-5), name
        assert centred.weight.mean((2, 3)).abs().max() < 1e-6


def test_learned_kernels_are_of_the_kind_size_and_nearest_depth() -> None:
    """Each set is one pattern, so that a drawn kernel tells which it is from."""
    patterns = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    first, middle, last, depthwise = (pattern.view(1, 1, 3, 3).expand(5, 1, 3, 3) for pattern in patterns)
    learned: Mapping = {("dense", 3): {0.0: first, 0.45: middle, 1.0: last}, ("depthwise", 3): {0.0: depthwise}}
    layers = [nn.Conv2d(*shape) for shape in ((3, 4, 3), (4, 4, 1), (4, 4, 3), (4, 4, 3))]
    model = nn.Sequential(*layers, nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    untouched = model[1].weight.clone()
    initialize_(model, LEARNED, 0, learned=learned)
    assert torch.equal(model[1].weight, untouched)
    for place, pattern in {0: 0, 2: 1, 3: 1, 4: 3, 5: 2}.items():  # depths 0, ¼, ½, ¾ and 1
        kernels = model[place].weight.detach().reshape(-1, 9)
        assert (F.cosine_similarity(kernels, patterns[pattern].expand_as(kernels)) > 0.999).all()


def test_the_empirical_gaussian_has_the_kernels_covariance() -> None:
    kernels = torch.randn(500, 1, 3, 3, generator=torch.Generator().manual_seed(0)).cumsum(-1) + 1
    layer = nn.Sequential(nn.Conv2d(100, 100, 3))
    initialize_(layer, GAUSSIAN, 0, learned={("dense", 3): {0.5: kernels}})
    drawn = layer[0].weight.detach().reshape(-1, 9)
    moments = [(x.T @ x / len(x)) / x.square().mean() for x in (drawn, kernels.flatten(1))]
    torch.testing.assert_close(*moments, atol=0.1, rtol=0.05)


def test_kinds() -> None:
    kinds = [kind_of(nn.Conv2d(*shape)) for shape in ((4, 4, 3, 1, 0, 1, 4), (4, 8, 3, 1, 0, 1, 4), (4, 8, 3))]
    assert kinds == ["depthwise", "depthwise", "dense"] and kind_of(nn.Conv2d(1, 4, 3)) == "dense"


@pytest.mark.parametrize("network", ["cifar", "convmixer", "resnet"])
@pytest.mark.parametrize("init", BY_BATCH)
def test_lsuv_makes_unit_variances(network: str, init: str, images: Tensor) -> None:
    pytest.importorskip("lsuv")
    made = _made(network, init, images).eval()
    found: list[float] = []
    for layer in spatial_convolutions(made).values():
        layer.register_forward_hook(lambda module, inputs, output: found.append(output.std().item()))
    made(images)
    assert found == pytest.approx([1.0] * len(found), abs=0.02)
    if init == DWP_LSUV:
        return
    matrix = next(iter(spatial_convolutions(made).values())).weight.detach().flatten(1)
    gram = matrix @ matrix.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-4, rtol=1e-4)


def test_the_effective_rank_of_known_channels() -> None:
    c = 6
    flat = torch.randn(c, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    flat -= flat.mean(1, keepdim=True)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(flat.cov()), flat, upper=False)

    def rank(channels: Tensor) -> float:
        return effective_rank(channels.view(c, 40, 10, 10).transpose(0, 1) + 5)

    assert rank(white) == pytest.approx(c)
    assert rank(white[:1] * torch.arange(1.0, c + 1)[:, None]) == pytest.approx(1)
    assert rank(torch.zeros(c, 4000)) == 0
    variances = torch.tensor([0.5, 0.25, 0.25, 0, 0, 0])  # entropy 1.5 bits
    assert rank(white * variances.sqrt()[:, None]) == pytest.approx(2**1.5)


def test_ranks_and_scales_after_each_spatial_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3))
    nn.init.constant_(model[0].weight, 0.0)
    nn.init.constant_(model[3].weight, 0.0)
    model[0].weight.data[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    nn.init.constant_(model[3].bias, -7.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.ones(2, 3, 8, 8)
    assert activation_scale(model, x) == pytest.approx([math.sqrt(30 / 4), 7.0])
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert channel_rank(model, x) == pytest.approx([1.0, 0.0], abs=1e-3)
    assert model.training and not model[0]._forward_hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_orthogonal_channels_raise_the_rank_of_kernels_with_a_mean(images: Tensor) -> None:
    """The reason for the option: a mean that kernels share adds up over input channels, so that all outputs are alike.

    Here it has 17 % of their energy, as in the authors' 5×5 kernels.
    """
    kernels = torch.randn(200, 1, 5, 5, generator=torch.Generator().manual_seed(0)) + 0.45
    prior = KernelDensity((1, 5, 5), 200).fit_(kernels)
    ranks = {}
    for init in (DWP, DWP_ORTHOGONAL):
        torch.manual_seed(0)
        layers = [part for into in (3, 16, 16) for part in (nn.Conv2d(into, 16, 5), nn.BatchNorm2d(16), nn.ReLU())]
        model = nn.Sequential(*layers)
        initialize_(model, init, 0, priors=[prior])
        ranks[init] = channel_rank(model, images)
    assert all(ours > plain for ours, plain in zip(ranks[DWP_ORTHOGONAL], ranks[DWP], strict=True))
    assert ranks[DWP][1] < 8 < 12 < ranks[DWP_ORTHOGONAL][1]


@pytest.mark.parametrize(
    ("init", "options", "message"),
    [
        ("He", {}, "init must be one of PyTorch default; Kaiming; .*; got 'He'"),
        (DWP, {"priors": ()}, "'dwp' needs priors=, which is empty; give it, or"),
        (DWP_ORTHOGONAL, {"priors": None}, "'dwp, orthogonal' needs priors="),
        (GAUSSIAN, {"learned": None}, "'empirical Gaussian' needs learned="),
        (LEARNED, {"learned": {}}, "'learned kernels' needs learned="),
        (LSUV, {"batch": None}, "'LSUV' needs batch="),
        (DWP, {"priors": [_prior(5)]}, "none has 5×5 kernels.*the model has 2×2 .1 layer., 7×7"),
        (
            LEARNED,
            {"learned": {("dense", 7): {0.0: _kernels(7)}}},
            "the model has dense 2×2, depthwise 7×7 kernels, the learned ones are dense 7×7",
        ),
    ],
)
def test_helpful_errors(init: str, options: dict[str, object], message: str, images: Tensor) -> None:
    model = NETWORKS["convmixer"]()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    given = {"priors": PRIORS, "learned": LEARNED_KERNELS, "batch": images} | options
    with pytest.raises(ValueError, match=message):
        initialize_(model, init, 0, **given)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("init", WITHOUT_BATCH)
def test_a_model_without_spatial_convolutions_is_refused(init: str) -> None:
    with pytest.raises(ValueError, match="no Conv2d with kernels larger than 1×1"):
        initialize_(nn.Conv2d(2, 2, 1), init, 0, priors=PRIORS, learned=LEARNED_KERNELS)


def test_without_its_package_lsuv_says_how_to_get_it(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lsuv", None)
    with pytest.raises(ImportError, match=r"pip install 'lsuv>=0.3', or leave LSUV out"):
        initialize_(NETWORKS["cifar"](), LSUV, 0, batch=images)
