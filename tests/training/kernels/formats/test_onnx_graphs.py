"""ONNX graphs whose convolutions, their order and their weights are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper, save
from onnx import load as load_model
from torch import Tensor

from training.kernels.formats.base import Entry
from training.kernels.formats.onnx_graphs import OnnxFormat


def values(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def tensor(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(values(*shape), name)


def conv(weight: str, op: str = "Conv", **attributes: Any) -> NodeProto:
    return helper.make_node(op, ["x", weight], [f"y of {weight}"], **attributes)


def graph_of(nodes: Sequence[NodeProto], *weights: TensorProto) -> GraphProto:
    return helper.make_graph(nodes, "net", [], [], initializer=weights)


def read(path: Path, model: GraphProto | ModelProto) -> tuple[dict[str, Entry], dict[str, Tensor]]:
    save(helper.make_model(model) if isinstance(model, GraphProto) else model, path)
    entries = OnnxFormat().entries(path)
    with OnnxFormat().open(path) as load:
        return entries, {name: load(name) for name in entries}


def test_convolutions_in_the_order_of_nodes(tmp_path: Path) -> None:
    nodes = [conv("c", group=4), conv("a", "ConvTranspose"), helper.make_node("Gemm", ["x", "d"], ["z"]), conv("b")]
    weights = [tensor("a", 2, 3, 4, 4), tensor("b", 2, 3, 5), tensor("c", 8, 1, 3, 3), tensor("d", 2, 3, 3, 3)]
    path = tmp_path / "net.onnx"
    entries, found = read(path, graph_of([*nodes, conv("c")], *weights))
    assert list(entries.items()) == [  # c, used twice, once
        ("c", Entry("F32", (8, 1, 3, 3), path, "plain", 4)),
        ("a", Entry("F32", (2, 3, 4, 4), path, "transposed", 1)),
        ("b", Entry("F32", (2, 3, 5), path, "plain", 1)),
    ]
    assert all(np.array_equal(found[name].numpy(), values(*entry.shape)) for name, entry in entries.items())


def test_constants_casts_and_quantized_weights(tmp_path: Path) -> None:
    half = numpy_helper.from_array(values(2, 3, 3, 3).astype(np.float16), "half")
    brain = helper.make_tensor("brain", TensorProto.BFLOAT16, (2, 1, 2, 2), values(2, 1, 2, 2).ravel())
    whole = numpy_helper.from_array(np.ones((2, 3, 3, 3), dtype=np.int8), "whole")
    nodes = [
        helper.make_node("Constant", [], ["constant"], value=tensor("other", 2, 3, 2, 2)),
        helper.make_node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["whole", "scale"], ["real"]),
        helper.make_node("Mul", ["half", "half"], ["computed"]),
        *[conv(name) for name in ("real", "single", "constant", "brain", "computed", "nowhere")],
        helper.make_node("QLinearConv", ["x", "s", "z", "whole#"], ["q"]),
        helper.make_node("Conv", ["x"], ["malformed"]),
    ]
    quantized = numpy_helper.from_array(np.ones((2, 3, 3, 3), dtype=np.uint8), "whole#")
    entries, found = read(tmp_path / "net.onnx", graph_of(nodes, half, brain, whole, quantized))
    assert {name: entry.dtype for name, entry in entries.items()} == {
        "whole": "I8",
        "half": "F16",
        "constant": "F32",
        "brain": "BF16",
        "whole#": "U8",
    }
    assert found["half"].dtype == torch.float16 and found["brain"].dtype == torch.bfloat16
    assert found["brain"].flatten().tolist() == list(range(8)) and found["constant"][1, 2, 1, 1] == 23


def test_subgraphs_and_functions(tmp_path: Path) -> None:
    branches = {
        name: graph_of([conv("outer"), conv("w")], numpy_helper.from_array(values(*shape), "w"))
        for name, shape in {"else_branch": (2, 3, 3, 3), "then_branch": (2, 3, 5, 5)}.items()
    }
    graph = graph_of([helper.make_node("If", ["c"], ["y"], **branches), conv("last")])
    graph.initializer.extend([tensor("last", 4, 4, 2, 2), tensor("outer", 4, 4, 3, 3)])
    assert {name: entry.shape[2] for name, entry in read(tmp_path / "if.onnx", graph)[0].items()} == {
        "outer": 3,
        "w": 3,
        "w#2": 5,
        "last": 2,
    }
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Block", ["x", "w"], ["y"], [conv("w", group=2)], opset)
    function.node[0].output[0] = "y"
    call = helper.make_node("Block", ["image", "kernels"], ["out"], domain="mine")
    model = helper.make_model(
        graph_of([call], tensor("kernels", 4, 2, 3, 3)), functions=[function], opset_imports=opset
    )
    entries, _ = read(tmp_path / "function.onnx", model)
    assert {name: entry.groups for name, entry in entries.items()} == {"kernels": 2}


def write_external(folder: Path) -> Path:
    """Two weights in one file next to the graph."""
    model = helper.make_model(graph_of([conv("a"), conv("b")], tensor("a", 8, 8, 3, 3), tensor("b", 9, 2, 3, 3)))
    external_data_helper.convert_model_to_external_data(model, location="net.data", size_threshold=0)
    save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_external_data(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    with OnnxFormat().open(path) as load:
        assert np.array_equal(load("a").numpy(), values(8, 8, 3, 3))
        assert np.array_equal(load("b").numpy(), values(9, 2, 3, 3))
    content = (tmp_path / "net.data").read_bytes()
    for lost, message in ((9, "b of .*net.onnx is incomplete"), (len(content), "a of .*net.onnx is incomplete")):
        (tmp_path / "net.data").write_bytes(content[:-lost])
        with OnnxFormat().open(path) as load, pytest.raises(ValueError, match=message):
            [load(name) for name in "ab"]
    (tmp_path / "net.data").unlink()
    with OnnxFormat().open(path) as load, pytest.raises(ValueError, match=r"needs the file net\.data, .*; put it next"):
        load("a")


@pytest.mark.parametrize("location", ["../net.data", "/etc/passwd", "", "sub/net.data"])
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    weight = TensorProto(name="a", dims=[1, 1, 3, 3], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    save(helper.make_model(graph_of([conv("a")], weight)), tmp_path / "net.onnx")
    message = f"names the file '{location}'; files of tensors must lie next to their graph"
    with OnnxFormat().open(tmp_path / "net.onnx") as load, pytest.raises(ValueError, match=message):
        load("a")


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("value", ["abc", "-5", "", "10000", str(10**18), "9" * 5000])
def test_external_data_that_cannot_be_there(tmp_path: Path, key: str, value: str) -> None:
    path = write_external(tmp_path)
    model = load_model(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = value if entry.key == key else entry.value
    path.write_bytes(model.SerializeToString())
    with OnnxFormat().open(path) as load, pytest.raises(ValueError, match=rf"a of .*net\.onnx is incomplete: .* {key}"):
        load("a")


@pytest.mark.parametrize("change", [{"data_type": 9999}, {"dims": [-1, 8, 3, 3]}])
def test_types_and_shapes_that_no_tensor_has(tmp_path: Path, change: dict[str, Any]) -> None:
    weight = TensorProto(name="a", **{"dims": [8, 8, 3, 3], "data_type": TensorProto.FLOAT} | change)
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph_of([conv("a")], weight)).SerializeToString())
    with pytest.raises(ValueError, match=r"a of .*net\.onnx has the type \d+ and the shape .*; get the file again"):
        OnnxFormat().entries(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no graph", "is not a complete ONNX file"), (b"", "is not an ONNX graph with operators; get it again")],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=f"net.onnx {message}"):
        OnnxFormat().entries(tmp_path / "net.onnx")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save(helper.make_model(graph_of([conv("weight")], tensor("weight", 8, 1, 3, 3))), path)
    path.write_bytes(path.read_bytes().replace(b"weight", b"\xff" * 6))
    with pytest.raises(ValueError, match=r"net.onnx is not a complete ONNX file"):
        OnnxFormat().entries(path)
