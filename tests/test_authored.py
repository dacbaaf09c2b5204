"""What an author set up on purpose stays as it is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dwp_init import apply_
from dwp_init.authored import is_untouched
from dwp_init.bayes import BayesConv2d, bayesianize_
from dwp_init.convolutions import layer_of
from tests.models import Doubled, Fit, Snapshot, old_style, parametrized, responses

NAMED = "; to draw it, give its exact name in layers="
ZERO = f"its weight is all zero, as its author left it{NAMED}"
COPIES = f"most of its kernels are copies of others, as after dirac_, another apply_, ICNR or upsampling{NAMED}"
BY_HAND = f"most of its kernels have few different values, as filters made by hand, such as blur or Sobel{NAMED}"
RESCALED = (
    "its weight is rescaled in the forward pass, as by spectral_norm or weight standardisation, so its response cannot "
    f"be kept{NAMED}"
)
FROZEN = f"its weight is frozen (requires_grad is False), as one that is pretrained{NAMED}"


def _zero() -> nn.Conv2d:
    layer = nn.Conv2d(8, 8, 3)
    nn.init.zeros_(layer.weight)
    return layer


def _icnr() -> nn.Conv2d:
    """A layer before a PixelShuffle of 2, whose four kernels of an output channel are equal (Aitken et al. 2017)."""
    layer = nn.Conv2d(8, 16, 3)
    layer.weight.data = layer.weight.data[:4].repeat_interleave(4, 0)
    return layer


def _filled(fill: Callable[[torch.Tensor], object], layer: nn.Module) -> nn.Module:
    fill(layer.weight)
    return layer


def _sobel() -> nn.Conv2d:
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    layer = nn.Conv2d(1, 2, 3)
    layer.weight.data = torch.stack([across, across.T])[:, None]
    return layer


def _blur(size: int) -> nn.Conv2d:
    ramp = torch.exp(-torch.linspace(-1, 1, size).abs().square())
    layer = nn.Conv2d(1, 1, size)
    layer.weight.data = torch.outer(ramp, ramp)[None, None]
    return layer


def _bilinear(layer: nn.ConvTranspose2d) -> nn.Module:
    ramp = torch.tensor([1.0, 2, 1]) / 2
    with torch.no_grad():
        layer.weight.copy_(torch.outer(ramp, ramp).expand_as(layer.weight))
    return layer


class OfNormOne(nn.Module):
    """A parametrization that gives the weight the norm 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm()

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


class OfNormOneConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_zero, ZERO),
        (lambda: parametrizations.weight_norm(_zero()), ZERO),
        (lambda: old_style(nn.utils.weight_norm, _zero()), ZERO),
        (lambda: parametrizations.spectral_norm(_zero()), ZERO),
        (lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), RESCALED),
        (lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(8, 8, 3)), RESCALED),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)), RESCALED),
        (lambda: parametrized(nn.Conv2d(8, 8, 3), OfNormOne()), RESCALED),
        (lambda: OfNormOneConv2d(8, 8, 3), RESCALED),
        (lambda: OfNormOneConv2d(8, 8, 3, stride=2, dilation=3).bfloat16(), RESCALED),
        (lambda: parametrizations.weight_norm(OfNormOneConv2d(8, 8, 3)), RESCALED),
        (lambda: old_style(nn.utils.weight_norm, OfNormOneConv2d(8, 8, 3)), RESCALED),
        (_icnr, COPIES),
        (lambda: _filled(nn.init.dirac_, nn.Conv2d(8, 8, 3)), COPIES),
        (lambda: _bilinear(nn.ConvTranspose2d(8, 8, 3, stride=2, groups=8)), COPIES),
        (_sobel, BY_HAND),
        (lambda: _blur(3), BY_HAND),
        (lambda: nn.Conv2d(8, 8, 3).requires_grad_(False), FROZEN),
        (lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3)).requires_grad_(False), FROZEN),
    ],
)
def test_what_an_author_set_up_stays_unless_it_is_named(
    make: Callable[[], nn.Module], reason: str, gaussian: Fit, snapshot: Snapshot
) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"plain": nn.Conv2d(8, 8, 3), "made": make()})
    before, prior = snapshot(model["made"]), gaussian(3)
    for layers in (None, "*", ["plain", "mad*"], lambda name, module: True):
        report = apply_(model, prior, layers=layers)
        assert report.initialized == ["plain"] and report.skipped["made"] == reason
    assert apply_(model, prior, strict=True).initialized == ["plain"]
    assert snapshot(model["made"]) == before
    assert apply_(model, prior, layers="made").initialized == ["made"]
    assert snapshot(model["made"]) != before


@pytest.mark.parametrize("name", ["StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"])
def test_layers_that_standardise_their_weight_stay(name: str, gaussian: Fit) -> None:
    made = getattr(pytest.importorskip("timm.layers"), name)(8, 8, 3)
    model = nn.ModuleDict({"plain": nn.Conv2d(8, 8, 3), "made": made})
    assert apply_(model, gaussian(3)).skipped == {"made": RESCALED}
    assert apply_(model, gaussian(3), layers="made").initialized == ["made"]


class GainedConv2d(nn.Conv2d):
    """A convolution after a normalisation and a convolution, whose outputs have a gain and a norm of 1."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3)
        self.before = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.gain * super().forward(self.before(x))
        return x / x.norm()


class OneOfTwoConv2d(nn.Conv2d):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


class NoisyConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight + 1e-3 * torch.randn_like(self.weight), self.bias)


@pytest.mark.parametrize(
    "make",
    [
        GainedConv2d,
        lambda: OneOfTwoConv2d(8, 8, 3),
        lambda: NoisyConv2d(8, 8, 3),
        lambda: parametrized(nn.Conv2d(8, 8, 3), Doubled()),
        lambda: _frozen_norm(parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), "parametrizations.weight.original0"),
        lambda: _frozen_norm(old_style(nn.utils.weight_norm, nn.Conv2d(8, 8, 3)), "weight_g"),
    ],
)
def test_layers_whose_weight_keeps_its_scale_are_drawn(
    make: Callable[[], nn.Module], gaussian: Fit, snapshot: Snapshot
) -> None:
    layer = make()
    before, state = snapshot(layer), torch.get_rng_state()
    scale = responses(layer)[""]
    assert apply_(layer, gaussian(3), seed=0, dry_run=True).initialized == [""] and snapshot(layer) == before
    assert apply_(layer, gaussian(3), seed=0).initialized == [""] and torch.equal(torch.get_rng_state(), state)
    assert responses(layer)[""] == pytest.approx(scale, rel=1e-5)


def _frozen_norm(layer: nn.Module, name: str) -> nn.Module:
    layer.get_parameter(name).requires_grad_(False)
    return layer


def test_a_lack_of_memory_in_a_trial_is_no_word_on_the_weight(gaussian: Fit) -> None:
    class Full(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        apply_(Full(8, 8, 3), gaussian(3))


def test_a_list_of_parameters_uses_none(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model.decayed = nn.ParameterList([layer.weight for layer in model])
    assert apply_(model, gaussian(3)).initialized == ["0", "1"]
    bayesianize_(model)
    assert all(isinstance(layer, BayesConv2d) for layer in (model[0], model[1]))


def test_a_few_outputs_that_are_copies_are_not_most_of_a_layer(gaussian: Fit) -> None:
    model = nn.Conv2d(8, 512, 3)
    with torch.no_grad():
        model.weight[:32] = model.weight[0]
    assert apply_(model, gaussian(3)).initialized == [""]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_inside_a_model_are_looked_at(gaussian: Fit) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)))
    model = nn.ModuleDict({"plain": nn.Conv2d(8, 8, 3), "rest": scripted})
    assert apply_(model, gaussian(3)).initialized == ["plain", "rest.0"]
    whole = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    assert apply_(whole, gaussian(3)).initialized == ["0", "2"]


def test_a_zero_weight_that_is_named_takes_the_response_of_he(gaussian: Fit) -> None:
    layer = _zero()
    with pytest.raises(ValueError, match=r"author left it; to draw it, give layers='', the name of the model itself$"):
        apply_(layer, gaussian(3))
    with pytest.raises(ValueError, match=r"layers= leaves out all convolutions; there are \(model\)$"):
        apply_(layer, gaussian(3), layers=[])
    apply_(layer, gaussian(3), layers="")
    assert responses(layer)[""] == pytest.approx((2 / 72) ** 0.5, rel=1e-5)


def test_a_large_blur_is_made_by_hand(gaussian: Fit) -> None:
    assert apply_(nn.Sequential(nn.Conv2d(1, 1, 3), _blur(11)), gaussian(3), resize=True).skipped == {"1": BY_HAND}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 1, 3), (96, 1, 7)])
def test_random_weights_are_no_copies(shape: tuple[int, int, int], dtype: torch.dtype, gaussian: Fit) -> None:
    outputs, inputs, size = shape
    groups = outputs if inputs == 1 else 1
    layer = nn.Conv2d(outputs if inputs == 1 else inputs, outputs, size, groups=groups).to(dtype)
    assert len(apply_(layer, gaussian(size)).drawn) == 1


def _changed(change: Callable[[torch.Tensor], object], inputs: int = 64) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, 64, 3)
    with torch.no_grad():
        change(layer.weight)
    return layer


def _mask(blocks: int) -> torch.Tensor:
    return torch.block_diag(*[torch.ones(64 // blocks, 64 // blocks)] * blocks)[:, :, None, None]


ZEROS = f"some of its outputs, inputs, kernels or taps are zero, as its author left them{NAMED}"
IDENTITY = f"most of its outputs are one of its inputs and little else, as an identity with noise{NAMED}"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: _changed(lambda weight: weight[32:].zero_()), ZEROS),
        (lambda: _changed(lambda weight: weight[5].zero_()), ZEROS),
        (lambda: _changed(lambda weight: weight[:, 4:].zero_(), 7), ZEROS),
        (lambda: _changed(lambda weight: weight.mul_(_mask(2))), BY_HAND),
        (lambda: _changed(lambda weight: weight[63, 63].zero_()), ZEROS),
        (lambda: _changed(lambda weight: weight[..., 2, 1:].zero_()), ZEROS),
        (lambda: _changed(lambda weight: nn.init.dirac_(weight[32:])), ZEROS),
        (lambda: _changed(lambda weight: nn.init.dirac_(weight).add_(1e-3 * torch.randn_like(weight))), IDENTITY),
        (lambda: _changed(lambda weight: nn.init.dirac_(weight).add_(1e-2 * torch.randn_like(weight))), IDENTITY),
    ],
)
def test_what_an_author_set_up_in_part_stays(make: Callable[[], nn.Module], reason: str, gaussian: Fit) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), make())
    before = model[2].weight.clone()
    assert apply_(model, gaussian(3)).skipped["2"] == reason
    assert torch.equal(model[2].weight, before)
    assert "2" in apply_(model, gaussian(3), layers=["*", "2"]).initialized


def test_a_gain_that_a_forward_pass_of_torch_does_not_read_is_no_reason(gaussian: Fit) -> None:
    layer = nn.Conv2d(8, 8, 3)
    layer.gain = nn.Parameter(torch.ones(8))
    assert apply_(layer, gaussian(3)).initialized == [""]


def test_a_weight_that_an_embedding_has_too_stays(gaussian: Fit) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(16, 72), "tied": nn.Conv2d(8, 16, 3), "free": nn.Conv2d(8, 16, 3)})
    model["tied"].weight = nn.Parameter(model["words"].weight.data.view(16, 8, 3, 3))
    before = model["words"].weight.clone()
    report = apply_(model, gaussian(3))
    assert report.initialized == ["free"] and torch.equal(model["words"].weight, before)
    assert report.skipped["tied"] == f"shares its memory with words, which is no convolution{NAMED}"
    assert apply_(model, gaussian(3), layers="tied").initialized == ["tied"]


def test_a_model_that_has_seen_batches_may_be_trained_which_a_note_says(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8))
    assert apply_(model, gaussian(3)).notes == []
    model(torch.randn(2, 3, 8, 8))
    (note,) = apply_(model, gaussian(3)).notes
    assert note.startswith(
        "1 holds statistics of batches or learned scales, so that the model may be trained: what its layers have"
    )
    model[1].reset_running_stats()
    assert apply_(model, gaussian(3)).notes == []
    norm = nn.GroupNorm(2, 8)
    learned = nn.Sequential(nn.Conv2d(3, 8, 3), norm)
    nn.init.normal_(norm.weight, 1, 0.02)  # as some authors do
    assert apply_(learned, gaussian(3)).notes == []
    nn.init.normal_(norm.bias)
    assert apply_(learned, gaussian(3)).notes[0].startswith("1 holds statistics of batches or learned scales")


@pytest.mark.parametrize("widths", [(3, 16), (16, 78)])
def test_xavier_is_told_from_the_default_where_their_spreads_are_alike(widths: tuple[int, int]) -> None:
    """In a layer of 5 times as many outputs as inputs they are the same law."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(*widths, 3) for _ in range(20)]
    assert all(map(is_untouched, map(layer_of, layers)))
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
    assert not any(map(is_untouched, map(layer_of, layers)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weight_normalisation_in_half_precision_leaves_the_default_what_it_is(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [parametrizations.weight_norm(nn.Conv2d(16, 16, 3)).to(dtype) for _ in range(20)]
    assert all(map(is_untouched, map(layer_of, layers)))
