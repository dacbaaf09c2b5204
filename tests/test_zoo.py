"""The set ``natural`` on the convolutional networks of torchvision: each layer is drawn, or skipped for a reason."""

import re
import time

import pytest
import torch
from torch import nn

from dwp_init import apply_
from tests.models import responses

models = pytest.importorskip("torchvision.models")

WITHOUT_CONVOLUTIONS = ("vit", "swin")  # except the one that cuts the image into patches
NAMES = [name for name in models.list_models(module=models) if not name.startswith(WITHOUT_CONVOLUTIONS)]
SMALLEST = (  # one of each family that is quick to build
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "vgg11",
)
OWN_SIZES = {"dense": {(3, 3), (5, 5), (7, 7)}, "depthwise": {(7, 7)}}  # and a stem of any size
NONE_FITS = (
    r"no prior given fits \d+×\d+ ((stem or )?dense|depthwise) kernels here"
    r"(; (resize=True|'natural' leaves|prior=) .+)?"
)


def build(name: str) -> nn.Module:
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options)


def without_values(name: str) -> nn.Module:
    """Builds a model, if possible without computing all of its weights; some then have arbitrary values."""
    try:
        with torch.device("meta"):
            model = build(name).to_empty(device="cpu")
    except (NotImplementedError, RuntimeError):  # it reads tensors while it is built
        return build(name)
    for module in convolutions(model).values():
        nn.init.uniform_(module.weight)
    return model


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def stem_of(model: nn.Module) -> nn.Conv2d:
    return next(module for module in convolutions(model).values() if module.in_channels == 3)


def has_a_prior(module: nn.Conv2d, resize: bool) -> bool:
    """Whether a prior has the layer's kernel size or, if the layer has one row, rows of its length."""
    longest = max(module.kernel_size)
    size = (longest, longest) if min(module.kernel_size) == 1 < longest else module.kernel_size
    kind = "depthwise" if module.groups == module.in_channels > 1 else "dense"
    if resize and kind == "depthwise":  # its kernels are only enlarged
        return longest > 1 and all(side == 1 or side >= 7 for side in module.kernel_size)
    return longest > 1 if resize else size in OWN_SIZES[kind]


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_is_drawn_or_skipped_for_a_reason(name: str) -> None:
    model = without_values(name)
    there = convolutions(model)
    for resize in (False, True):
        report = apply_(model, "natural", scale="keep", dry_run=True, resize=resize)
        expected = [name for name, each in there.items() if each is stem_of(model) or has_a_prior(each, resize)]
        assert report.initialized == expected
        assert all(re.fullmatch(NONE_FITS, report.skipped[name]) for name in there.keys() - set(report.initialized))


@pytest.mark.parametrize(
    ("name", "whole"),
    [("alexnet", True), ("vgg11_bn", True), ("vgg11", False), ("resnet18", False)],  # VGG11 has the scale of its author
)
def test_in_plain_chains_dense_layers_change_by_default(name: str, whole: bool) -> None:
    model = build(name)
    rows = apply_(model, "natural", seed=0).drawn
    assert [row.layer for row in rows] == list(convolutions(model))[: None if whole else 1]
    assert [row.from_prior for row in rows] == ["natural-stem", *[""] * (len(rows) - 1)]
    before = [weight.clone() for weight in model.parameters()]
    again = apply_(model, "natural", seed=1).drawn
    assert [row.prior for row in again] == [row.prior for row in rows]
    differ = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert differ == [True, *[False] * (len(differ) - 1)]


@pytest.mark.parametrize("name", SMALLEST)
def test_outputs_are_finite_and_every_layer_keeps_its_response(name: str) -> None:
    torch.manual_seed(0)
    model = build(name).eval()
    before = responses(model)
    images = torch.randn(2, 3, 96, 96) if name != "inception_v3" else torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        differ = (model(images).diff(dim=0) != 0).any()
    report = apply_(model, "natural", scale="keep", resize=True, seed=0)
    assert len(report) > 0 and responses(model) == pytest.approx(before, rel=1e-3)
    with torch.no_grad():
        outputs = model(images)
    assert outputs.isfinite().all() and (outputs.diff(dim=0) != 0).any() == differ


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny"])
def test_a_draw_takes_less_than_one_and_a_half_seconds(name: str) -> None:
    model = without_values(name)

    def cpu_seconds() -> float:
        start = time.process_time()  # unlike the time on the wall, not longer on a busy machine
        apply_(model, "natural", scale="keep", seed=0)
        return time.process_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # because threads that wait for each other spin, which counts too
    try:
        assert min(cpu_seconds() for _ in range(3)) < 1.5
    finally:
        torch.set_num_threads(threads)
