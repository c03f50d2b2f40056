"""Graphs in a lower precision are valid, and compute nearly what the float32 graphs compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.tensorrt.precision import cast_graph
from runtime.artifacts.plan_manifest import Precision
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import NETWORKS

IN_EACH_TEST = ("sd15 vae_decoder", "sd15 text_encoder")
NAMES = [name if name in IN_EACH_TEST else pytest.param(name, marks=pytest.mark.verify) for name in NETWORKS]


def _cast(graph: bytes, precision: Precision) -> onnx.ModelProto:
    model = onnx.load_from_string(graph)
    cast_graph(model, precision)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_types_of_a_graph_fit_each_other(graphs: Graphs, name: str) -> None:
    """By onnx's own inference, which knows no bfloat16 convolution."""
    model = _cast(graphs.artifact(name, "linear").graph, "float16")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {TensorProto.FLOAT16}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    lengths = {
        t.name: int(next(e.value for e in t.external_data if e.key == "length")) for t in model.graph.initializer
    }
    assert lengths == {name: 2 * size for name, size in sizes.items()}
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del model.graph.initializer[:]
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_inputs_and_outputs(graphs: Graphs, precision: Precision) -> None:
    """Integers, timesteps and outputs keep their types."""
    model = _cast(graphs.artifact("sd15 text_encoder", "linear").graph, precision)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert kinds.pop("end") == TensorProto.INT64
    assert set(kinds.values()) == {TensorProto.DataType.Value(precision.upper())}
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}


def _small(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A graph of `t` and `latent` with the output `out`."""
    shape = [2]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("t", "latent")]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    return helper.make_model(helper.make_graph(list(nodes), "small", inputs, outputs))


def test_what_depends_on_timesteps_alone_stays_float32() -> None:
    model = _small(
        helper.make_node("Sin", ["t"], ["sin"]),
        helper.make_node("Add", ["sin", "latent"], ["sum"]),
        helper.make_node("Mul", ["sum", "sin"], ["out"]),
    )
    cast_graph(model, "bfloat16")
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [
        ("Sin", ["t"]),
        ("Cast", ["sin"]),
        ("Add", ["sin.low", "latent"]),
        ("Mul", ["sum", "sin.low"]),
        ("Cast", ["out.BFLOAT16"]),
    ]


def test_finite_constants_stay_finite() -> None:
    values = np.array([1.5, -3.4e38, -np.inf], np.float32)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(values))
    model = _small(constant, helper.make_node("Add", ["latent", "c"], ["out"]))
    cast_graph(model, "float16")
    (low,) = (node.attribute[0].t for node in model.graph.node if list(node.output) == ["c.low"])
    assert numpy_helper.to_array(low).tolist() == [1.5, -65504.0, -np.inf]


def test_float32_changes_nothing(graphs: Graphs) -> None:
    graph = graphs.artifact("sd15 vae_decoder", "none").graph
    assert _cast(graph, "float32") == onnx.load_from_string(graph)
