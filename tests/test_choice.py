"""Which layer takes which prior, and why other layers are skipped."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, KernelVAE, MixtureByDepth, apply_
from dwp_init.places import Span
from tests.models import Fit, Snapshot, changed, fake_mode, named, network, responses


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


def test_the_first_pattern_that_matches_counts_also_if_its_priors_do_not_fit(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    patterns = {"0": named(gaussian(7), "seven"), "*": named(gaussian(3), "three")}
    report = apply_(model, patterns)
    assert [row.prior for row in report.drawn] == ["three"] and report.unused == ["seven"]
    assert report.skipped == {"0": "no prior given fits 3×3 kernels here; resize=True would take seven"}
    assert [row.prior for row in apply_(model, patterns, resize=True).drawn] == ["seven, resized from 7×7", "three"]


def test_an_iterator_of_layers_is_read_once_also_if_a_part_of_the_model_has_no_values(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, device="meta"))
    assert apply_(model, gaussian(3), layers=iter(["0"])).initialized == ["0"]


def test_the_time_of_a_choice_grows_with_the_number_of_layers(gaussian: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(Span, "overlaps", lambda *spans: compared.append(spans))
    apply_(nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(40))), gaussian(3), dry_run=True)
    assert not compared  # all have memory of their own


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


def test_resize_passes_over_priors_without_a_plane_and_keeps_to_the_first_pattern(gaussian: Fit) -> None:
    point, three, seven = gaussian(1), gaussian(3), gaussian(7)
    for prior, name in ((point, "point"), (three, "three"), (seven, "seven")):
        prior.details["name"] = name
    assert apply_(nn.Conv2d(2, 2, 5), [point, three], resize=True).drawn[0].prior == "three, resized from 3×3"
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    rows = apply_(model, {"0": seven, "*": three}, resize=True).drawn
    assert [row.prior for row in rows] == ["seven, resized from 7×7", "three"]


def test_resize_gives_the_nearest_size_and_says_so(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 5), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (1, 9)), nn.Conv2d(4, 4, 11))
    three, seven = gaussian(3), gaussian(7)
    three.details["name"], seven.details["name"] = "three", "seven"
    with pytest.raises(ValueError, match=r"the model has 5×5 \(1 layer\), .*; resize=True would take seven"):
        apply_(model, [three, seven])
    report = apply_(model, [three, seven], resize=True, seed=0, scale="fan_in")
    assert [(row.layer, row.prior) for row in report.drawn] == [
        ("0", "seven, resized from 7×7"),
        ("2", "seven, resized from the middle row of 7×7"),
        ("3", "seven, resized from 7×7"),
    ]
    assert report.skipped == {"1": "no prior given fits 1×1 kernels here"}
    assert responses(model)["0"] == pytest.approx((2 / 50) ** 0.5)


def test_strict_accepts_a_complete_choice_only(gaussian: Fit, snapshot: Snapshot) -> None:
    model, three = network(), gaussian(3)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"strict: no prior given fits 5×5 \(0.0\); add a prior, resize=True, narrow"):
        apply_(model, three, strict=True)
    with pytest.raises(ValueError, match=r"strict: no layer took 'Gaussian'; .* or leave strict off"):
        apply_(model, [three, gaussian(5), gaussian(7)], strict=True)
    assert snapshot(model) == before
    assert apply_(model, three, strict=True, layers="1.*").initialized == ["1.0", "1.2"]
    assert apply_(model, [three, gaussian(5)], strict=True).initialized == ["0.0", "1.0", "1.2"]


def test_strict_minds_only_the_layers_asked_for(gaussian: Fit) -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match=r"strict: no prior given fits length-3 \(0\); add a prior"):
        apply_(model, gaussian(3), strict=True)
    assert apply_(model, gaussian(3), strict=True, layers="1").skipped == {"0": "not among the layers asked for"}


def test_long_lists_of_layers_are_cut_and_a_pattern_is_suggested(gaussian: Fit) -> None:
    model = nn.ModuleDict({"features": nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(22)))})
    there = r"did you mean 'features\.\*'\? there are features.0, .*, features.4, … 17 more$"
    with pytest.raises(ValueError, match=f"layers='features' matches no convolution; {there}"):
        apply_(model, gaussian(3), layers="features")
    with pytest.raises(ValueError, match=f"pattern 'features' of prior= matches no convolution; {there}"):
        apply_(model, {"features": gaussian(3)})


BAD = [
    (TypeError, 3, "layers is a pattern, several, or a predicate of name and module; got 3"),
    (TypeError, ["*", 3], "layers is a pattern, .*; got 3 in it"),
    (TypeError, nn.Sequential(nn.Conv2d(1, 2, 3)), r"layers is .*; got a Sequential: give its name, as in layers="),
    (TypeError, nn.Conv2d, "layers is a pattern, .*; got <class"),
    (ValueError, "0", r"layers='0' matches no convolution; did you mean '0\.\*'\? there are 0.0, 1.0, 1.2, 2$"),
    (ValueError, "1.1", r"layers='1.1' matches no convolution; did you mean '1\.[02]'\? there are"),
    (ValueError, "stem", "layers='stem' matches no convolution; there are 0.0, 1.0, 1.2, 2$"),
    (ZeroDivisionError, lambda name, module: 1 / 0, "division by zero"),
    (ValueError, [], "no layer can be initialised: layers= leaves out all convolutions; there are 0.0, 1.0, 1.2, 2$"),
]


@pytest.mark.parametrize(("kind", "layers", "message"), BAD)
def test_helpful_errors(kind: type[Exception], layers: Any, message: str, gaussian: Fit, snapshot: Snapshot) -> None:
    model = network()
    before = snapshot(model)
    with pytest.raises(kind, match=message):
        apply_(model, gaussian(3), layers=layers)
    assert snapshot(model) == before


def test_a_single_layer_is_called_model_in_messages(gaussian: Fit) -> None:
    with pytest.raises(ValueError, match=r"layers='stem' matches no convolution; there are \(model\)$"):
        apply_(nn.Conv2d(1, 2, 3), gaussian(3), layers="stem")


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


def faked() -> nn.Module:
    with fake_mode():
        return network()


@pytest.mark.parametrize(("make", "reason"), [(on_meta, "on the meta device: "), (faked, "a FakeTensor, ")])
def test_a_model_without_values_is_a_report_and_takes_no_prior(make: Callable[[], nn.Module], reason: str) -> None:
    report = apply_(make(), "no-such-prior", strict=True)
    assert report.drawn == [] and set(report.spatial.values()) == {100, 288}
    assert [report.skipped[name].startswith(reason) for name in ("0.0", "1.0", "1.2", "2")] == [True] * 4
    assert report.skipped["4"] == "not a convolution"
    only = apply_(nn.Sequential(make(), nn.Conv2d(1, 2, 3)), "no-such-prior", layers="0.1.*")
    assert list(only.spatial) == ["0.1.0", "0.1.2"] and only.skipped["1"] == "not among the layers asked for"
    partly = nn.Sequential(make(), nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="no prior and no folder is called 'no-such-prior'"):
        apply_(partly, "no-such-prior")
    with fake_mode(), pytest.raises(ValueError, match="a FakeTensorMode is active, in which nothing can be drawn for"):
        apply_(partly, "natural")
