"""ONNX graphs: the weights of their convolutions, in the order of execution; the graph is never run."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dwp_init.text import brief
from training.kernels.formats.base import Entry, Format, Operator, dtype_name

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}  # which input it is
_KEEP = ("Identity", "Cast", "DequantizeLinear")  # operators whose first input is the weight that they give


class OnnxFormat(Format):
    """The weights of convolutions: initializers and constants, also behind a cast, and in subgraphs and functions.

    Quantized weights have the integer type that is stored. A weight that the graph computes otherwise is no entry.
    Tensors in external files are read from the folder of the graph.
    """

    suffixes = (".onnx",)
    ordered = True

    def entries(self, path: Path) -> dict[str, Entry]:
        return {name: _entry(path, *found) for name, found in _read(path).items()}

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[str], Tensor]]:
        found = _read(path)
        yield lambda name: _values(path, found[name][0])


def _read(path: Path) -> "dict[str, tuple[TensorProto, NodeProto]]":
    """Returns the weights of a file by name, each with the first convolution that takes it."""
    import onnx
    from onnx.inliner import inline_local_functions

    try:
        model = onnx.load(path, load_external_data=False)
        model = inline_local_functions(model) if model.functions else model
        weights = list(_weights(model.graph, {}))
    except Exception as error:  # that of protobuf, of the library for what is malformed, or of a name that is no text
        raise ValueError(f"{path} is not a complete ONNX file ({error}); get it again, or remove it") from error
    if not model.graph.node:
        raise ValueError(f"{path} is not an ONNX graph with operators; get it again, or remove it")
    found: dict[str, tuple[TensorProto, NodeProto]] = {}
    for name, tensor, node in weights:
        key, number = name, 1
        while key in found and found[key][0] is not tensor:  # another graph's tensor of the same name
            number += 1
            key = f"{name}#{number}"
        found.setdefault(key, (tensor, node))
    return found


def _weights(graph: "GraphProto", outer: Mapping[str, Any]) -> "Iterator[tuple[str, TensorProto, NodeProto]]":
    known = {**outer, **{tensor.name: (tensor.name, tensor) for tensor in graph.initializer}}
    for node in graph.node:
        weight = known.get("".join(node.input[_WEIGHTS.get(node.op_type, 0) :][:1]))  # an input may be missing
        for name in node.output:
            if node.op_type == "Constant":
                known |= ((name, (name, each.t)) for each in node.attribute if each.name == "value")
            elif node.op_type in _KEEP and weight:
                known[name] = weight
        if node.op_type in _WEIGHTS and weight:
            yield (*weight, node)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _weights(inner, known)


def _entry(path: Path, tensor: "TensorProto", node: "NodeProto") -> Entry:
    from onnx import TensorProto

    if tensor.data_type not in TensorProto.DataType.values() or min(tensor.dims, default=0) < 0:
        raise ValueError(
            f"{tensor.name} of {path} has the type {tensor.data_type} and the shape {tuple(tensor.dims)}, which no "
            "tensor has; get the file again"
        )
    dtype = dtype_name(TensorProto.DataType.Name(tensor.data_type))
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    layout: Operator = "transposed" if node.op_type == "ConvTranspose" else "plain"
    return Entry(dtype, tuple(tensor.dims), path, layout, groups)


def _values(path: Path, tensor: "TensorProto") -> Tensor:
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _with_external_data(path, tensor)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, LookupError) as error:  # also where values are of another type than the tensor
        raise ValueError(f"{tensor.name} of {path} is incomplete ({error}); get the file again") from error
    if tensor.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array.copy())


def _whole(text: str, most: int) -> int:
    """Returns a whole number from 0 to ``most``; ``most + 1`` for everything else."""
    return min(int(text), most + 1) if re.fullmatch("[0-9]{1,18}", text) else most + 1


def _with_external_data(path: Path, tensor: "TensorProto") -> "TensorProto":
    """Reads a tensor's values from the file next to the graph that it names."""
    from onnx import TensorProto

    where = {entry.key: entry.value for entry in tensor.external_data}
    name = where.get("location", "")
    if not name or Path(name).name != name:
        raise ValueError(f"{path} names the file {name!r}; files of tensors must lie next to their graph")
    if not (path.parent / name).is_file():
        raise ValueError(f"{path} needs the file {name}, which is missing; put it next to it")
    size = (path.parent / name).stat().st_size
    offset = _whole(where.get("offset", "0"), size)
    length = _whole(where.get("length", str(size - min(offset, size))), size)
    if offset + length > size:
        given = ", ".join(f"{key} {brief(where[key])}" for key in ("offset", "length") if key in where)
        raise ValueError(
            f"{tensor.name} of {path} is incomplete: {name} has {size:,} bytes, and the graph says {given}; get the "
            "files again"
        )
    with (path.parent / name).open("rb") as file:
        file.seek(offset, os.SEEK_SET)
        raw = file.read(length)
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
