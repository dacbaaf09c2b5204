"""What the demonstration shows of a draw, and what it says is wrong."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
import torch

import dwp_init
from dwp_init.report import Drawn
from space import looks as module
from space.interface import ARCHITECTURES
from space.looks import kernels_html, look_at, response_svg, timm_model


def test_a_look_has_the_report_and_the_kernels_before_and_after() -> None:
    look = look_at("test_resnet", "natural", seed=3)
    model = timm_model("test_resnet", seed=3)
    before = {name: each.weight.detach().clone() for name, each in model.named_modules() if hasattr(each, "weight")}
    report = dwp_init.apply_(model, "natural", seed=3)
    assert str(look.report) == str(report) and list(look.kernels) == report.initialized
    for name, (own, drawn) in look.kernels.items():
        for found, weight in ((own, before[name]), (drawn, model.get_submodule(name).weight)):
            whole = weight if weight.shape[1] == 3 else weight.flatten(0, 1)[:, None]
            assert torch.equal(found, whole[:32])
    assert look.kernels[report.initialized[0]][0].shape[1] == 3  # the stem, in colour


def test_pictures_have_their_size_and_say_what_they_show() -> None:
    look = look_at("test_resnet", "natural")
    layer = next(iter(look.kernels))
    html = kernels_html(look, layer)
    sizes = re.findall(r'<img src="data:image/png;base64,[\w+/=]+" width="(\d+)" height="(\d+)" alt="([^"]+)">', html)
    assert [alt for *_, alt in sizes] == [
        f"kernels of {layer}: the model&#x27;s own start",
        f"kernels of {layer}: drawn from the prior",
    ]
    assert all(int(width) > 200 for width, *_ in sizes)
    assert kernels_html(look, "none") == kernels_html(None, layer) == ""


def test_responses_without_a_gain_are_left_out() -> None:
    row = Drawn("a", "Conv2d", "p", 0.0, 9, 0.1, 0.2, 1.0, 2.0)
    unknown = Drawn("b", "Conv2d", "p", 0.0, 9, None, 0.2, None, 2.0)
    assert response_svg([row, unknown]) == response_svg([row]) != response_svg([row, row])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnte18", "timm has no 'resnte18'; did you mean resnet18"),
        ("resnet18(pretrained=True)", r"must be a name of timm, such as resnet18; got 'resnet18\(pretrained=True\)'"),
        ("", "must be a name of timm"),
        ("create_model", "create_model"),
        ("vit_giant_patch14_224", r"1,0\d\d million parameters; .* takes up to 100 million: choose a smaller one"),
    ],
)
def test_a_name_that_is_none_and_a_network_that_is_too_large_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_model(name)


def test_the_networks_to_choose_from_are_all_taken_by_a_race_of_the_most_seeds() -> None:
    for name in ARCHITECTURES:
        assert isinstance(timm_model(name, networks=8, num_classes=10, in_chans=1), torch.nn.Module)


def test_networks_of_a_seed_are_the_same_while_another_thread_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    load, both = module.load_model, Barrier(2)

    def loaded(spec: str) -> torch.nn.Module:
        model = load(spec)
        if not next(model.parameters()).is_meta:
            with suppress(BrokenBarrierError):
                both.wait(0.5)  # until the other thread has drawn from the same generator, unless it must not
            torch.nn.init.normal_(next(model.parameters()))
        return model

    def first(seed: int) -> torch.Tensor:
        return next(timm_model("test_resnet", seed).parameters()).detach()

    monkeypatch.setattr(module, "load_model", loaded)
    alone = [first(seed) for seed in (3, 4)]
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(*pair) for pair in zip(pool.map(first, (3, 4)), alone, strict=True))
    assert not torch.equal(*alone)


def test_a_prior_that_reaches_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer can be initialised: 'brain-mri' is for 3×3×3 kernels"):
        look_at("test_resnet", "brain-mri")
