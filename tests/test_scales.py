"""Which layers take He's response by default, and which keep theirs."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dwp_init import PriorSet, apply_
from tests.chains import EVERYWHERE, Residual, Walked, conv, head, plain
from tests.models import Fit, responses


def test_a_plain_chain_that_nobody_scaled_takes_the_response_of_he(gaussian: Fit) -> None:
    model, he = plain(4, head()), math.sqrt(2 / 72)
    nn.init.normal_(model[4].weight, std=0.01)  # a scale that somebody chose
    before = responses(model)
    report = apply_(model, gaussian(3), seed=0)
    assert responses(model) == pytest.approx({"0": he, "2": he, "4": before["4"], "6": he, "8": before["8"]}, rel=1e-4)
    (note,) = report.notes
    assert note.startswith("3 of 4 layers had PyTorch's default scale in a chain without normalisation, and take He's")
    assert f"note: {note}" in str(report)


def test_notes_tell_layers_of_he_from_those_that_pass_their_inputs_on(gaussian: Fit) -> None:
    torch.manual_seed(0)
    widths = [(4, 8), (8, 8), (8, 12), (12, 12)]
    model = nn.Sequential(*(part for pair in widths for part in (nn.Conv2d(*pair, 3), nn.ReLU())))
    prior = PriorSet(dense=(gaussian(3),), dirac=True)
    notes = apply_(model, prior).notes
    assert notes[0].startswith("2 of 4 layers had PyTorch's default scale in a chain")
    assert notes[1:] == [
        "3 of 4 layers (2, 4, 6) pass their inputs on: their first output channels are copies of these; nothing is "
        "drawn in 2 of them, so that the seed has no effect there; in a new model scale='fan_in' draws all channels"
    ]
    assert apply_(model, prior).notes == notes[1:]
    kept = replace(prior, kept=("dense",))
    assert apply_(model, kept).notes == [notes[1].replace("in 2 of them", "in 3 of them")]
    for layer in model[::2]:
        layer.reset_parameters()
    assert apply_(model, kept).notes[0] == notes[0]


def test_blocks_that_are_drawn_one_by_one_and_added_to_their_inputs_stay_as_large() -> None:
    """What is drawn does not hold the module that adds."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(plain(2) for _ in range(16))
    x = torch.randn(2, 8, 12, 12)
    spreads: list[float] = []
    for _ in range(2):
        y = x
        with torch.no_grad():
            for block in blocks:
                y = y + block(y)
        spreads.append(y.std().item())
        assert not any(apply_(block, EVERYWHERE).notes for block in blocks)
    assert spreads[1] == pytest.approx(spreads[0], rel=0.7)


class Upscaled(nn.Module):
    """Adds 9 copies of the image to the outputs of a chain, as networks for mobile phones do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3), nn.ReLU(), conv(), nn.ReLU(), nn.Conv2d(8, 27, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(x.repeat_interleave(9, 1) + self.body(x), 3)


@pytest.mark.parametrize(
    "make",
    [
        Upscaled,
        lambda: Walked(nn.Sequential(*(nn.Sequential(conv(), nn.ReLU()) for _ in range(12)))),
        lambda: Walked(nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU(), *plain(12))),
        lambda: nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        lambda: nn.Sequential(*(part for _ in "ab" for part in (nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3), nn.ReLU()))),
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.AvgPool2d(3, 1, 1), conv(), nn.ReLU()),
    ],
)
def test_a_chain_that_may_be_added_to_what_it_takes_keeps_its_scale(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    x = torch.randn(2, 3 if isinstance(model, Upscaled) else 8, 24, 24)
    before = model(x).std().item()
    report = apply_(model, EVERYWHERE, seed=0)
    assert report.drawn and not any("He's" in note or "pass their inputs" in note for note in report.notes)
    assert model(x).std().item() == pytest.approx(before, rel=0.7)


@pytest.mark.parametrize("scale", ["auto", "keep"])
def test_a_scale_is_kept_where_the_data_flow_is_not_known_and_a_note_says_so(scale: str, gaussian: Fit) -> None:
    model = Residual(plain())
    model.first = conv()
    before = responses(model)
    report = apply_(model, gaussian(3), scale=scale)
    assert responses(model) == pytest.approx(before, rel=1e-4)
    assert report.notes[0].startswith("5 of 5 layers have PyTorch's default scale, and nothing normalises: if there")


def test_layers_that_a_set_leaves_count_in_the_note() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Residual(plain(3)))
    report = apply_(model, "natural")
    assert report.initialized == ["0"]
    assert report.notes[0].startswith("4 of 4 layers have PyTorch's default scale, and nothing normalises: if there")
    assert report.notes[0].endswith("scale='fan_in' is better, and draws all of them")
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), conv(), nn.ReLU())
    chain.register_forward_hook(lambda *_: None)
    assert apply_(chain, "natural").notes[0].startswith("hooks of (model) may change what passes through the chain")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_have_the_default_scale_too(dtype: torch.dtype, gaussian: Fit) -> None:
    torch.manual_seed(0)  # 1 / √fan_in is rounded up for 25 channels, in bfloat16 by .3 %
    layers = (part for _ in range(4) for part in (nn.Conv2d(25, 25, 3), nn.ReLU()))
    report = apply_(nn.Sequential(*layers, nn.Conv2d(25, 2, 1)).to(dtype), gaussian(3))
    assert report.notes[0].startswith("4 of 4 layers had PyTorch's default scale")


@pytest.mark.parametrize("fill", [nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_uniform_])
def test_a_scale_that_somebody_chose_is_kept(fill: Callable[[Tensor], Tensor], gaussian: Fit) -> None:
    model = plain()
    for layer in model[::2]:
        fill(layer.weight)
    before = responses(model)
    assert apply_(model, gaussian(3)).notes == []
    assert responses(model) == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (plain(4, nn.GroupNorm(2, 8)), {}),
        (nn.Sequential(conv(), Residual(plain(2))), {}),
        (nn.Sequential(conv(), Residual(plain())), {"scale": "fan_in"}),
    ],
)
def test_no_note_without_need(model: nn.Module, options: dict[str, str], gaussian: Fit) -> None:
    assert apply_(model, gaussian(3), **options).notes == []


def test_layers_with_strides_lose_no_pixel(gaussian: Fit) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(part for _ in range(4) for part in (nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())))
    report = apply_(model, PriorSet(dense=(gaussian(3),), dirac=True), seed=0)
    assert {row.prior for row in report.drawn} == {"Gaussian"}
    x = torch.randn(2, 8, 33, 33, requires_grad=True)
    model(x).sum().backward()
    assert (x.grad.abs().sum((0, 1)) > 0).float().mean() > 0.95


def test_a_layer_with_fewer_outputs_than_inputs_loses_none_of_them(gaussian: Fit) -> None:
    """The first layer is the stem, the second has outputs enough, and the third has not."""
    pairs = [(3, 16), (16, 16), (16, 4)]
    model = nn.Sequential(*(part for pair in pairs for part in (nn.Conv2d(*pair, 3), nn.ReLU())))
    apply_(model, PriorSet(dense=(gaussian(3),), dirac=True), seed=0)
    reached = [int((layer.weight.flatten(2).abs().sum((0, 2)) > 0).sum()) for layer in model[::2]]
    assert reached == [3, 16, 16]
    assert [int((layer.weight != 0).sum()) for layer in model[2::2]] == [16, 16 * 4 * 9]


def test_the_scale_of_kernels_that_were_brought_to_one_size_has_a_note(gaussian: Fit) -> None:
    layers, notes = [nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)], []
    for prior, scale in (("restoration", "prior"), (gaussian(3), "prior"), ("restoration", "fan_in")):
        notes += [note[:50] for note in apply_(nn.Sequential(*layers), prior, scale=scale, seed=0).notes]
    assert notes == ["scale='prior' makes 2 more than 10 times as strong"]
