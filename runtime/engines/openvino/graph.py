"""An exported graph as an OpenVINO model whose weights are open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from openvino import opset13 as operators

from runtime.artifacts.artifact import Artifact
from runtime.engines.openvino.core import core
from runtime.engines.openvino.exact_times import take_times

# In the runtime information of a node: OpenVINO keeps a constant in its own type and this conversion of it. Without it,
# it makes a constant of the converted values, of twice the size, and keeps that beside the weights that it repacks.
_KEPT_CONVERSION = "decompression_0"


class Graph:
    """`shapes`: the parameters that the graph takes by name. `manifest`: its inputs and outputs.

    `times`: what a model that computes in `dtype` must not compute itself.
    """

    def __init__(self, artifact: Artifact, dtype: torch.dtype = torch.float32) -> None:
        self.manifest = artifact.manifest
        model = onnx.load_from_string(artifact.graph)
        self.shapes = {tensor.name: torch.Size(tensor.dims) for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        del model.graph.initializer[:]
        self._model = core().read_model(model.SerializeToString())
        self.times = take_times(self._model) if dtype == torch.bfloat16 else None

    def nbytes(self, dtype: torch.dtype) -> int:
        """The size of its weights in `dtype`."""
        return sum(shape.numel() for shape in self.shapes.values()) * dtype.itemsize

    def bind(self, weights: Mapping[str, torch.Tensor]) -> Any:
        """An `ov.Model` with copies of these weights, float32 or bfloat16, in the shapes of `shapes`."""
        model = self._model.clone()
        for parameter in model.get_parameters():
            name = parameter.get_friendly_name()
            if name in self.shapes:
                parameter.output(0).replace(_constant(weights[name]).output(0))
                model.remove_parameter(parameter)
        return model


def _constant(value: torch.Tensor) -> Any:
    """A node with a copy of the value, as float32.

    OpenVINO would keep a shared array alive as long as the compiled model, beside the weights that it repacks.
    """
    if value.dtype == torch.float32:
        return operators.constant(value.numpy(), shared_memory=False)
    stored = ov.Tensor(ov.Type.bf16, ov.Shape(list(value.shape)))
    np.copyto(stored.data.view(np.int16), value.view(torch.int16).numpy())
    node = operators.convert(ov.op.Constant(stored), "f32")
    node.get_rt_info()[_KEPT_CONVERSION] = ""
    return node
