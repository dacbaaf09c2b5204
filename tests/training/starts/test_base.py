from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from dwp_init.convolutions import he_rms
from training.starts import base
from training.starts.base import (
    KAIMING,
    STARTS,
    Start,
    add_start,
    check_starts,
    each,
    find_start,
    initialize_,
    kind_of,
    needing,
    spatial_convolutions,
    start_names,
)
from training.starts.priors import NATURAL_FAN_IN, NATURAL_KEEP

Make = Callable[..., nn.Module]
NETWORKS = ("mnist", "cifar", "vae", "resnet", "convmixer", "convnext", "mobilenet")
BY_BATCH = needing("batch")
AS_APPLIED = (NATURAL_KEEP, NATURAL_FAN_IN)  # what no prior fits is left as it is
OF_FREE_SCALE = ("PyTorch default", KAIMING, "Xavier", *BY_BATCH, *AS_APPLIED)
OF_FREE_SCALE = (*OF_FREE_SCALE, *(name for name in STARTS if name.endswith("scale")))
OLD = ("PyTorch default", "Xavier", KAIMING, "white noise, dwp's RMS", "dwp", "dwp, prior's scale", "dwp, orthogonal")
OLD = (*OLD, "white noise, prior's scale", "learned kernels, He's RMS", "learned kernels, own scale")


def test_every_name_of_the_recorded_tables_is_there() -> None:
    assert set(OLD) < set(start_names()) and len(set(start_names())) == len(start_names())
    assert find_start("white noise, dwp's RMS") is find_start("white noise") is STARTS["white noise"]
    assert find_start("learned kernels, He's RMS") is STARTS["learned kernels"] and find_start("He") is None


def test_labels_and_colours_tell_starts_apart() -> None:
    for column in ("name", "label", "colour"):
        assert len({getattr(start, column) for start in STARTS.values()}) == len(STARTS)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("start", STARTS)
def test_only_spatial_kernels_differ_and_by_the_seed(network: str, start: str, make: Make) -> None:
    if start in BY_BATCH:
        pytest.importorskip("lsuv")
        if network == "vae":
            pytest.skip("a VAE has no forward pass of images alone")
    base_, kaiming, made, again = (make(network, each) for each in ("PyTorch default", KAIMING, start, start))
    other = make(network, start, seed=1)
    spatial = {f"{name}.weight": layer.kernel_size[0] for name, layer in spatial_convolutions(made).items()}
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        changed = not torch.equal(value, base_.state_dict()[name])
        if spatial.get(name) != 2:
            assert changed == (start != "PyTorch default" and name in spatial)
        elif start in AS_APPLIED:
            assert not changed
        elif needing("priors", "learned").count(start) and start not in BY_BATCH:  # no prior is of 2×2 kernels
            assert torch.equal(value, kaiming.state_dict()[name])
    assert all(not torch.equal(made.state_dict()[name], other.state_dict()[name]) for name in spatial)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("start", [start for start in STARTS if start not in OF_FREE_SCALE])
def test_the_root_mean_square_is_hes(network: str, start: str, make: Make) -> None:
    for layer in spatial_convolutions(make(network, start)).values():
        if layer.kernel_size[0] > 2:
            assert layer.weight.square().mean().sqrt().item() == pytest.approx(he_rms(layer), rel=1e-4)


@pytest.mark.parametrize("start", ["dwp", "Xavier", "learned kernels"])
def test_layers_narrow_the_choice(start: str, make: Make) -> None:
    plain, network = make("vae", "PyTorch default"), make("vae", start, layers=("encoder.*",))
    for name, layer in spatial_convolutions(network).items():
        assert torch.equal(layer.weight, spatial_convolutions(plain)[name].weight) == name.startswith("decoder")


def test_starts_never_share_draws(make: Make) -> None:
    noise, kaiming = (make("cifar", start).features.conv2.weight.flatten() for start in ("white noise", KAIMING))
    assert abs(nn.functional.cosine_similarity(noise, kaiming, dim=0).item()) < 0.1


@pytest.fixture
def dirac(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A start that a test enters."""
    monkeypatch.setattr(base, "STARTS", dict(STARTS))
    law = each(lambda layer, generator: nn.init.dirac_(torch.empty(layer.weight.shape)))
    yield add_start(Start("dirac", "dirac", "#000000", (), law, aliases=("identity",)))


def test_a_start_is_one_record(dirac: Start) -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    x = torch.rand(2, 3, 8, 8)
    for name in ("dirac", "identity"):
        initialize_(nn.Sequential(layer), name, 0)
        assert torch.equal(layer(x), x) and name in start_names()
    with pytest.raises(ValueError, match="there is a start of this name already: identity"):
        add_start(Start("identity", "", "", (), dirac.fill))


def test_kinds() -> None:
    kinds = [kind_of(nn.Conv2d(*shape)) for shape in ((4, 4, 3, 1, 0, 1, 4), (4, 8, 3, 1, 0, 1, 4), (4, 8, 3))]
    assert kinds == ["depthwise", "depthwise", "dense"] and kind_of(nn.Conv2d(1, 4, 3)) == "dense"


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("He", {}, "inits must be some of PyTorch default; Kaiming; .*, each once; got He"),
        ("dwp", {"priors": ()}, "dwp cannot be drawn from nothing: name priors=, or leave them out"),
        ("white noise, prior's scale", {"priors": ()}, "white noise, prior's scale cannot be drawn .*: name priors="),
        ("empirical Gaussian", {"learned": None}, "Gaussian cannot be drawn .*: name kernels stages in needs="),
        ("learned kernels, He's RMS", {"learned": {}}, "learned kernels, He's RMS cannot be drawn from nothing"),
        ("LSUV", {"batch": None}, "LSUV cannot be drawn from nothing: give images in batch="),
        ("dwp", {"strict": True}, r"'dwp' has nothing to draw from for stem.* \(dense 2×2\): add to priors or needs"),
        ("Xavier", {"layers": ("conv",)}, r"larger than 1×1 matches \('conv',\); it has stem"),
    ],
)
def test_helpful_errors(start: str, options: dict[str, object], message: str, make: Make) -> None:
    with pytest.raises(ValueError, match=message):
        make("convmixer", start, **options)


@pytest.mark.parametrize("start", [start for start in STARTS if start not in BY_BATCH])
def test_a_network_without_spatial_convolutions_is_refused(start: str, priors: list, learned: dict) -> None:
    with pytest.raises(ValueError, match=r"with kernels larger than 1×1 matches \('\*',\); it has none"):
        initialize_(nn.Conv2d(2, 2, 1), start, 0, priors=priors, learned=learned)


@pytest.mark.parametrize("chosen", [(), ("Xavier", "Xavier"), ("white noise", "white noise, dwp's RMS")])
def test_a_choice_names_each_law_once(chosen: tuple[str, ...], images: Tensor) -> None:
    with pytest.raises(ValueError, match=f"each once; got {'; '.join(chosen) or 'none'}"):
        check_starts(chosen, priors=True, learned=True)
