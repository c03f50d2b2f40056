"""Casts a float32 graph to a lower precision, as TensorRT's strongly typed networks need it.

What depends on timesteps alone stays float32 until it meets a weight: bfloat16 would round neighbouring timesteps to
one value. So does what depends on sizes alone. The outputs are cast to float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.artifacts.plan_manifest import Precision
from runtime.engines.exact_inputs import EXACT_INPUTS

# Whether a value has the lower precision, is float32, or is no float.
_Kind = Literal["low", "exact", "other"]
_TYPES: Mapping[Precision, int] = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
_NUMPY = {TensorProto.FLOAT16: np.dtype(np.float16), TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
_LARGEST = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: 2.0**127 * (2 - 2.0**-7)}
_NOT_FLOAT = frozenset(
    {"Shape", "Size", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not"}
)
_TYPED_INPUTS = {"Resize": 1}  # of these operators, only so many inputs have the type of the output
_BYTES = 2


def cast_graph(model: onnx.ModelProto, precision: Precision) -> None:
    """Change `model`, an exported graph without weights, in place. float32 changes nothing."""
    if precision != "float32":
        _Caster(model.graph, _TYPES[precision]).run()


class _Caster:
    """Goes through the nodes in their order, which is topological, and inserts casts where kinds meet."""

    def __init__(self, graph: onnx.GraphProto, low_type: int) -> None:
        self._graph, self._low_type = graph, low_type
        self._kinds: dict[str, _Kind] = {"": "other"}
        self._constants: dict[str, onnx.TensorProto] = {}
        self._lowered: dict[str, str] = {}  # value -> its copy of the lower precision
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        graph = self._graph
        for value in graph.input:
            self._add_input(value)
        for tensor in graph.initializer:
            self._cast_initializer(tensor)
        inner = {value.name: f"{value.name}.{TensorProto.DataType.Name(self._low_type)}" for value in graph.output}
        for node in graph.node:
            node.input[:] = [inner.get(name, name) for name in node.input]
            node.output[:] = [inner.get(name, name) for name in node.output]
            self._add(node)
        for name, before in inner.items():
            self._nodes.append(helper.make_node("Cast", [before], [name], f"Cast_{name}", to=TensorProto.FLOAT))
        del graph.node[:]
        graph.node.extend(self._nodes)

    def _add_input(self, value: onnx.ValueInfoProto) -> None:
        tensor_type = value.type.tensor_type
        if tensor_type.elem_type != TensorProto.FLOAT:
            self._kinds[value.name] = "other"
        elif value.name in EXACT_INPUTS:
            self._kinds[value.name] = "exact"
        else:
            self._kinds[value.name] = "low"
            tensor_type.elem_type = self._low_type

    def _cast_initializer(self, tensor: onnx.TensorProto) -> None:
        tensor.data_type = self._low_type
        for entry in tensor.external_data:
            if entry.key == "length":
                entry.value = str(_BYTES * int(np.prod(tensor.dims, dtype=np.int64)))
        self._kinds[tensor.name] = "low"

    def _add(self, node: onnx.NodeProto) -> None:
        kind = self._kind(node)
        if kind == "low":
            count = _TYPED_INPUTS.get(node.op_type, len(node.input))
            node.input[:] = [self._low(name) if place < count else name for place, name in enumerate(node.input)]
        for name in node.output:
            self._kinds[name] = kind
        self._nodes.append(node)

    def _kind(self, node: onnx.NodeProto) -> _Kind:
        """The kind of the outputs. Changes the type that a cast of a low value gives."""
        if node.op_type in ("Constant", "ConstantOfShape"):
            return self._kind_of_constant(node)
        kinds = [self._kinds[name] for name in node.input[: _TYPED_INPUTS.get(node.op_type)]]
        if node.op_type == "Cast":
            return self._kind_of_cast(node.attribute, kinds[0])
        if node.op_type in _NOT_FLOAT:
            return "other"
        return "low" if "low" in kinds else "exact" if "exact" in kinds else "other"

    def _kind_of_constant(self, node: onnx.NodeProto) -> _Kind:
        value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            self._constants[node.output[0]] = value
        is_float = node.op_type == "ConstantOfShape" if value is None else value.data_type == TensorProto.FLOAT
        return "exact" if is_float else "other"

    def _kind_of_cast(self, attributes: Sequence[onnx.AttributeProto], given: _Kind) -> _Kind:
        to = next(entry for entry in attributes if entry.name == "to")
        if to.i != TensorProto.FLOAT:
            return "other"
        if given == "low":
            to.i = self._low_type
        return "low" if given == "low" else "exact"

    def _low(self, name: str) -> str:
        """The value in the lower precision. Adds what casts it."""
        if self._kinds[name] != "exact":
            return name
        if name not in self._lowered:
            low = self._lowered[name] = f"{name}.low"
            if name in self._constants:
                node = helper.make_node("Constant", [], [low], f"Constant_{low}", value=self._rounded(name))
            else:
                node = helper.make_node("Cast", [name], [low], f"Cast_{low}", to=self._low_type)
            self._nodes.append(node)
        return self._lowered[name]

    def _rounded(self, name: str) -> onnx.TensorProto:
        """A constant; finite numbers stay finite, as an infinite one times zero is not a number."""
        value, dtype = numpy_helper.to_array(self._constants[name]), _NUMPY[self._low_type]
        largest = _LARGEST[self._low_type]
        finite = np.clip(value, -largest, largest)
        return numpy_helper.from_array(np.where(np.isfinite(value), finite, value).astype(dtype))
