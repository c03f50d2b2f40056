"""Makes the parameters of a traced graph initializers without data, named as in the network's state_dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from export.axes import NamedAxes, shown_axes
from export.errors import ExportError

# The place that each initializer names instead of a file. A reader that looks for a file finds none.
LOCATION = "bound-by-name"
_FLOAT = onnx.TensorProto.FLOAT
_BYTES = 4


def make_weightless(
    model: onnx.ModelProto,
    inputs: Sequence[str],
    outputs: NamedAxes,
    prefix: str,
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """Change `model`, whose inputs are `inputs` and then the parameters, in place.

    outputs: the axes of the outputs, of which the exporter knows not all. prefix: what precedes a canonical parameter
    name in the names of the traced parameters. shapes: the shapes of all parameters by canonical name. Raises
    ExportError when the graph has other inputs or parameters.
    """
    graph = model.graph
    given = [value for value in graph.input if value.name in set(inputs)]
    if [value.name for value in given] != list(inputs) or graph.initializer:
        raise ExportError("the exporter dropped or reordered inputs, or kept values of parameters")
    traced = [value for value in graph.input if value.name not in set(inputs)]
    names = {value.name: value.name.removeprefix(prefix) for value in traced}
    graph.initializer.extend(_placeholder(names[value.name], value) for value in traced)
    _check(graph, shapes)
    del graph.input[:]
    graph.input.extend(given)
    del graph.output[:]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(name, _FLOAT, shown_axes(axes)) for name, axes in outputs.items()
    )
    _shorten_names(graph, names)


def _placeholder(name: str, value: onnx.ValueInfoProto) -> onnx.TensorProto:
    """An initializer with external data that is nowhere. `length`: its bytes, which TensorRT's parser needs."""
    tensor_type = value.type.tensor_type
    shape = [dim.dim_value for dim in tensor_type.shape.dim]
    placeholder = onnx.TensorProto(
        name=name, data_type=tensor_type.elem_type, dims=shape, data_location=onnx.TensorProto.EXTERNAL
    )
    length = _BYTES
    for size in shape:
        length *= size
    for key, text in (("location", LOCATION), ("length", str(length))):
        placeholder.external_data.add(key=key, value=text)
    return placeholder


def _check(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> None:
    found = {tensor.name: (tuple(tensor.dims), tensor.data_type) for tensor in graph.initializer}
    expected = {name: (tuple(shape), _FLOAT) for name, shape in shapes.items()}
    if found != expected:
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ExportError(
            f"the graph's parameters differ from the network's in {len(different)} of {len(expected)}: {different[:3]}"
        )


def _shorten_names(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename the parameters by `names`, and give nodes and inner values short unique names.

    Nodes are named by their operator and number: a TensorRT layer has the name of its node. Inputs and outputs keep
    their names. Names of inner values are most of a graph's size.
    """
    names |= {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an optional input that is absent

    def short(name: str) -> str:
        return names.setdefault(name, f"x{len(names):x}")

    for number, node in enumerate(graph.node):
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ExportError(f"the graph has control flow ({node.op_type})")
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    del graph.value_info[:]
    graph.ClearField("doc_string")
