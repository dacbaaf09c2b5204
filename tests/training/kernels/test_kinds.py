"""Kinds of layers that are known, of shapes as in public networks."""

from pathlib import Path

import pytest

from training.kernels.formats.base import Entry
from training.kernels.kinds import find_kinds, find_stem

Shapes = dict[str, tuple[int, ...]]


def kinds(shapes: Shapes, transposed: tuple[str, ...] = ()) -> dict[str, str]:
    entries = {name: Entry("F32", shape, Path()) for name, shape in shapes.items()}
    return find_kinds([name for name, shape in shapes.items() if max(shape[2:], default=1) > 1], entries, transposed)


@pytest.mark.parametrize(
    ("shapes", "stem"),
    [
        ({"conv1": 3, "layer1.0.conv1": 8}, "conv1"),
        ({"a": 8, "b": 3, "c": 3}, "b"),  # an image's channels count wherever the name is sorted
        ({"a.up": 3, "z.stem.0": 3}, "z.stem.0"),
        ({"decoder.conv_in": 4, "encoder.conv_in": 3}, "encoder.conv_in"),
        ({"blocks.0.conv_dw": 1, "conv_stem": 3}, "conv_stem"),
        ({"features.conv1": 1, "features.conv2": 8}, "features.conv1"),  # a grey image
        ({"blocks.0.conv_dw": 1, "stem.conv": 1}, "stem.conv"),
        ({"conv_in": 4, "down.0": 4}, "conv_in"),
        ({"a": 8, "b": 1, "c": 4}, "b"),  # a grey image, wherever its name is sorted
        ({"blocks.0.dw": 1, "blocks.1.dw": 1}, None),  # behind a 1×1 stem
        ({"0": 1, "2": 8}, "0"),
        ({"a": 8, "stem": 16, "dw": 1}, None),
        ({"conv2d": 1, "depthwise_1": 1, "depthwise_2": 1}, "conv2d"),  # what is not named like the others
        ({"0.conv_a": 13, "1.conv": 16}, "0.conv_a"),
        ({"0.conv_a": 14, "1.conv": 16}, None),
        ({}, None),
    ],
)
def test_stem(shapes: dict[str, int], stem: str | None) -> None:
    assert find_stem({name: Entry("F32", (16, n, 3, 3), Path()) for name, n in shapes.items()}) == stem


def test_a_layer_behind_a_pointwise_stem_is_depthwise() -> None:
    shapes: Shapes = {"0.weight": (8, 1, 3, 3), "1.weight": (8, 1, 3, 3)}
    assert list(kinds(shapes).values()) == ["stem", "depthwise"]
    assert list(kinds(shapes | {"z.weight": (8, 3, 1, 1)}).values()) == ["depthwise", "depthwise"]


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ({"up.weight": (32, 16, 2, 2), "up.bias": (16,)}, "transposed"),
        ({"up.weight": (32, 16, 2, 2), "up.bias": (32,)}, "dense"),
        ({"deconv.weight": (32, 16, 2, 2), "deconv.bias": (32,)}, "dense"),  # sizes are better evidence than names
        ({"a.0.weight": (32, 16, 2, 2), "a.1.weight": (16,)}, "transposed"),
        ({"a.0.weight": (32, 16, 2, 2), "a.1.weight": (32,)}, "dense"),
        ({"0.weight": (32, 16, 2, 2), "1.running_mean": (16,)}, "transposed"),
        ({"a.conv2.weight": (32, 128, 3, 3), "a.norm1.weight": (128,)}, "dense"),  # as in a DenseNet
        ({"a.0.weight": (32, 16, 2, 2), "b.1.weight": (16,)}, "dense"),
        ({"up.parametrizations.weight.original1": (32, 16, 4), "up.bias": (16,)}, "transposed"),
        ({"up.weight": (32, 32, 2, 2), "up.bias": (32,)}, "dense"),
        ({"conv3d_transpose.kernel": (32, 32, 3, 3, 3)}, "transposed"),
        ({"l006.convT.conv7_layer.weight": (3, 256, 4, 4)}, "transposed"),
        ({"up.depthwise_transpose.weight": (32, 1, 4, 4)}, "transposed-depthwise"),
        ({"mask_transpose.weight": (32, 1, 4, 4), "mask_transpose.bias": (1,)}, "transposed"),
    ],
)
def test_transposed(shapes: Shapes, kind: str) -> None:
    assert list(kinds({"conv1.weight": (64, 3, 3, 3), **shapes}).values()) == ["stem", kind]


def test_a_pattern_names_transposed_layers() -> None:
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3), "up.weight": (32, 32, 2, 2), "up.0.weight": (32, 32, 2, 2)}
    assert list(kinds(shapes, ("up.w*",)).values()) == ["stem", "transposed", "dense"]


@pytest.mark.parametrize(
    ("layout", "groups", "shape", "kind"),
    [
        ("plain", 1, (8, 1, 3, 3), "dense"),  # a mask is read in the middle of a network
        ("plain", 8, (8, 1, 3, 3), "depthwise"),
        ("plain", 2, (8, 3, 3, 3), "dense"),
        ("transposed", 1, (8, 1, 3, 3), "transposed"),
        ("transposed", 8, (8, 1, 3, 3), "transposed-depthwise"),
        ("plain", 1, (8, 4, 3, 3), "dense"),
    ],
)
def test_what_the_format_says_holds(layout: str, groups: int, shape: tuple[int, ...], kind: str) -> None:
    entries = {
        "stem": Entry("F32", (32, 3, 3, 3), Path(), "plain", 1),
        "deconv.depthwise": Entry("F32", shape, Path(), layout, groups),
    }
    assert list(find_kinds(entries, entries).values()) == ["stem", kind]
