"""Layers of hand-made state dicts whose kinds and depths are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.training.kernels.states import State, network, normal
from training.kernels.convolutions import ConvolutionTensor, LeftOut, read_convolutions
from training.kernels.formats.safetensors_files import SafetensorsFormat
from training.kernels.places import find_checkpoints


def read(path: Path, state: State) -> tuple[list[tuple[ConvolutionTensor, Tensor]], list[LeftOut]]:
    save_file(state, path / "one.safetensors")
    (checkpoint,) = find_checkpoints([str(path / "one.safetensors")])
    return read_convolutions(checkpoint, checkpoint.entries())


def layers(path: Path, state: State) -> tuple[dict[str, tuple[str, float]], dict[str, str]]:
    """Returns kind and depth of each layer of a state dict, in order, and why tensors were left out."""
    found, left_out = read(path, state)
    assert all(weight.dtype == torch.float32 for _, weight in found)
    kinds = {layer.name: (layer.kind, round(layer.depth, 3)) for layer, _ in found}
    return kinds, {item.tensor: f"{item.reason}: {item.detail}" for item in left_out}


def test_kind_and_depth(tmp_path: Path) -> None:
    kinds, left_out = layers(tmp_path, network())
    assert list(kinds.items()) == [
        ("stem.conv.weight", ("stem", 0)),
        ("block.2.conv.weight", ("dense", 0.333)),
        ("block.3.depthwise.weight", ("depthwise", 0.667)),
        ("block.10.conv.weight", ("dense", 1)),
    ]
    assert left_out == {"block.2.pointwise.weight": "1×1: F32 (4, 4, 1, 1)"}


def test_averages_and_optimizers_states_are_no_layers(tmp_path: Path) -> None:
    names = ("model.conv1", "model_ema.conv1", "model.conv2", "ema.conv9", "state.exp_avg.conv1", "schema.conv3")
    names += ("x.online_model.conv", "x.ema_model.conv")
    found, left_out = layers(tmp_path, {name: normal(2, 8, 3, 3, seed=i) for i, name in enumerate(names)})
    assert list(found) == [
        "ema.conv9",
        "model.conv1",
        "model.conv2",
        "schema.conv3",
        "x.ema_model.conv",
    ]  # or an average alone
    assert left_out == {
        "model_ema.conv1": "an average of another tensor, by its name: F32 (2, 8, 3, 3)",
        "state.exp_avg.conv1": "an optimizer's state, by its name: F32 (2, 8, 3, 3)",
        "x.online_model.conv": "averaged in another tensor, by its name: F32 (2, 8, 3, 3)",
    }


def test_one_to_one_channel_is_dense_and_the_only_layer_has_depth_0(tmp_path: Path) -> None:
    assert layers(tmp_path, {"a": normal(2, 8, 3, 3)})[0] == {"a": ("dense", 0)}
    found, _ = layers(
        tmp_path,
        {
            "a": normal(8, 16, 3, 3),
            "gate": normal(1, 1, 7, 7),
            "mixer": normal(2, 1, 7, 7),
            "more": normal(2, 1, 7, 7, seed=1),
        },
    )
    assert [kind for kind, _ in found.values()] == ["dense", "dense", "depthwise", "depthwise"]


def test_half_and_double_precision_become_single(tmp_path: Path) -> None:
    dtypes = {"a": torch.float16, "b": torch.bfloat16, "c": torch.float64, "d": torch.float32}
    kinds, left_out = layers(tmp_path, {name: normal(2, 8, 3, 3).to(dtype) for name, dtype in dtypes.items()})
    assert list(kinds) == ["a", "b", "c", "d"] and not left_out


def test_what_is_left_out_is_named_and_why(tmp_path: Path) -> None:
    wrong = normal(2, 8, 3, 3, seed=5)
    wrong[1, 1, 1, 1] = float("nan")
    state = {
        "a": normal(2, 8, 3, 3),
        "b.int8": torch.ones(2, 8, 3, 3, dtype=torch.int8),
        "c.float8": normal(2, 8, 3, 3).to(torch.float8_e4m3fn),
        "d.nan": wrong,
        "e.large": torch.full((2, 8, 3, 3), 1e300, dtype=torch.float64),
        "f.zero": torch.zeros(2, 8, 3, 3),
        "g.zero": torch.zeros(2, 8, 3, 3),
        "h.tied": normal(2, 8, 3, 3),
        "i.bias_table": normal(2, 8, 1, 7),
        "j.mask": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        "k.map": normal(1, 1, 65, 65),
        "l.pos_embed": normal(1, 8, 14, 14),
        "m.kernel": normal(3, 3, 16, 16),
        "n.index": torch.zeros(2, 2, 3, 3, dtype=torch.int64),
        "o.none": torch.zeros(0, 2, 3, 3),
        "p.weight": normal(8, 8, 1),
        "q.cls_token": normal(1, 1, 8),
        "r.weight": normal(3, 3, 3, 16, 16),
        "s.weight_v": normal(2, 8, 3, 3),
        "z": normal(2, 8, 3, 3, seed=7),
    }
    kinds, left_out = layers(tmp_path, state)
    assert kinds == {"a": ("dense", 0), "z": ("dense", 1)}
    assert left_out == {
        "b.int8": "quantized: I8 (2, 8, 3, 3)",
        "c.float8": "quantized: F8_E4M3 (2, 8, 3, 3)",
        "d.nan": "NaN or, in float32, infinity: F32 (2, 8, 3, 3)",
        "e.large": "NaN or, in float32, infinity: F64 (2, 8, 3, 3)",
        "f.zero": "all zeros: F32 (2, 8, 3, 3)",
        "g.zero": "all zeros: F32 (2, 8, 3, 3)",
        "h.tied": "tied to another tensor: a",
        "i.bias_table": "a table, by its name: F32 (2, 8, 1, 7)",
        "j.mask": "no floating-point numbers: BOOL (1, 1, 8, 8)",
        "k.map": "larger than 64: F32 (1, 1, 65, 65)",
        "l.pos_embed": "positions, by its name: F32 (1, 8, 14, 14)",
        "m.kernel": "channels last, by its shape (*size, in, out): F32 (3, 3, 16, 16)",
        "n.index": "no floating-point numbers: I64 (2, 2, 3, 3)",
        "o.none": "empty: F32 (0, 2, 3, 3)",
        "p.weight": "1: F32 (8, 8, 1)",
        "r.weight": "channels last, by its shape (*size, in, out): F32 (3, 3, 3, 16, 16)",
        "s.weight_v": "directions of a weight norm without its magnitudes: F32 (2, 8, 3, 3)",
    }


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_normed_layer_has_its_magnitudes(norm: Any, dim: int | None, tmp_path: Path) -> None:
    layer = norm(nn.Conv2d(8, 16, 3), dim=dim)
    with torch.no_grad():
        for name, values in layer.named_parameters():
            values.mul_(torch.rand(values.shape) + 0.5 if name.endswith(("_g", "original0")) else 3)
    layer(torch.ones(1, 8, 3, 3))  # an old one computes its weight here
    ((_, weight),), left_out = read(tmp_path, layer.state_dict())
    torch.testing.assert_close(weight, layer.weight.detach())
    assert not left_out


def test_layers_that_cannot_be_used_keep_their_place(tmp_path: Path) -> None:
    """A quantized layer stands where it stood, and is still the stem; a tied one is no layer of its own."""
    state = {
        "a": torch.ones(4, 3, 3, 3, dtype=torch.int8),
        "b": torch.zeros(2, 3, 3, 3),
        "c": normal(2, 3, 3, 3),
        "d": normal(2, 3, 3, 3),
        "e": normal(2, 3, 3, 3, seed=1),
    }
    assert layers(tmp_path, state)[0] == {"c": ("dense", 0.667), "e": ("dense", 1)}


def test_kernels_of_every_dimension_have_groups_of_their_own(tmp_path: Path) -> None:
    shapes = {"a": (8, 3, 3), "b": (8, 16, 3, 3), "c": (8, 16, 1, 7), "d": (8, 16, 7, 1), "e": (8, 1, 3, 3, 3)}
    state = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    found = read(tmp_path, state)[0]
    assert [layer.group for layer, _ in found] == ["stem-3", "dense-3x3", "dense-1x7", "dense-7x1", "depthwise-3x3x3"]
    kernels = [tuple(layer.cut(weight).shape) for layer, weight in found]
    assert kernels == [(8, 3, 3), (128, 1, 3, 3), (128, 1, 1, 7), (128, 1, 7, 1), (8, 1, 3, 3, 3)]


def test_a_format_that_says_more_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, operators and groups; what it gives no operator is no convolution."""
    save_file(
        {"z": normal(8, 2, 3, 3), "y": normal(8, 1, 3, 3), "x": normal(16, 8, 2, 2), "w": normal(4, 4, 3, 3)},
        tmp_path / "one.safetensors",
    )
    (checkpoint,) = find_checkpoints([str(tmp_path / "one.safetensors")])
    known = {"z": ("plain", 1), "y": ("plain", 8), "x": ("transposed", 1), "w": ("", None)}
    entries = {
        name: replace(checkpoint.entries()[name], layout=layout, groups=groups)
        for name, (layout, groups) in known.items()
    }
    monkeypatch.setattr(SafetensorsFormat, "ordered", True)
    found, left_out = read_convolutions(checkpoint, entries)
    assert [(layer.name, layer.kind, layer.depth) for layer, _ in found] == [
        ("z", "stem", 0),
        ("y", "depthwise", 0.5),
        ("x", "transposed", 1),
    ]
    assert [(item.tensor, item.reason) for item in left_out] == [("w", "no convolution's, by its format")]
