"""An exported graph as an OpenVINO model whose weights are open."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from openvino import opset13 as operators

from runtime.artifacts.artifact import Artifact
from runtime.engines.openvino.core import core
from runtime.engines.openvino.exact_times import ExactTimes, take_times

# In the runtime information of a node: OpenVINO keeps a constant in its own type and this conversion of it. Without it,
# it makes a constant of the converted values, of twice the size, and keeps that beside the weights that it repacks.
_KEPT_CONVERSION = "decompression_0"


class Graph:
    """`manifest`: its inputs and outputs. It is opened at its first use: the UNet of SD 1.5 takes 0.3 s and 40 MB.

    One thread at a time uses it.
    """

    def __init__(self, artifact: Artifact, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: that in which the models will compute."""
        self.manifest = artifact.manifest
        self._graph, self._dtype = artifact.graph, dtype

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """The parameters that the graph takes by name."""
        return {tensor.name: torch.Size(tensor.dims) for tensor in onnx.load_from_string(self._graph).graph.initializer}

    @property
    def times(self) -> ExactTimes | None:
        """What a model that computes in `dtype` must not compute itself."""
        # A model in float32 that is read from the disk needs nothing of the graph.
        return self._opened[1] if self._dtype == torch.bfloat16 else None

    @cached_property
    def _opened(self) -> tuple[Any, ExactTimes | None]:
        """The model with an input for each parameter."""
        model = onnx.load_from_string(self._graph)
        for tensor in model.graph.initializer:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        del model.graph.initializer[:]
        opened = core().read_model(model.SerializeToString())
        return opened, take_times(opened) if self._dtype == torch.bfloat16 else None

    def nbytes(self, dtype: torch.dtype) -> int:
        """The size of its weights in `dtype`."""
        return sum(shape.numel() for shape in self.shapes.values()) * dtype.itemsize

    def bind(self, weights: Mapping[str, torch.Tensor]) -> Any:
        """An `ov.Model` with copies of these weights, float32 or bfloat16, in the shapes of `shapes`."""
        model = self._opened[0].clone()
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
