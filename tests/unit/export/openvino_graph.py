"""Runs exported graphs in OpenVINO on the CPU, in float32, with weights bound by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import torch
from openvino import opset13 as operators

from runtime.artifacts.artifact import Artifact
from runtime.engines.openvino.core import core


class OpenVinoGraph:
    """A graph with weights.

    The weights are not copied to a file: each initializer becomes an input, and each of these inputs a constant that
    shares the tensor's memory.
    """

    def __init__(self, artifact: Artifact, weights: Mapping[str, torch.Tensor]) -> None:
        self._manifest = artifact.manifest
        model, names = _read(artifact.graph)
        self._kept = {name: weights[name].float().contiguous().numpy() for name in names}
        for parameter in model.get_parameters():
            name = parameter.get_friendly_name()
            if name in names:
                value = self._kept[name].reshape(parameter.get_partial_shape().to_shape())
                constant = operators.constant(value, shared_memory=True)
                parameter.output(0).replace(constant.output(0))
                model.remove_parameter(parameter)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self._compiled = core().compile_model(model, "CPU", settings)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name. `inputs`: all inputs of the graph."""
        found = self._compiled({name: value.contiguous().numpy() for name, value in inputs.items()})
        return {tensor.name: torch.from_numpy(found[tensor.name].copy()) for tensor in self._manifest.outputs}


def _read(graph: bytes) -> tuple[Any, set[str]]:
    """The model with an input for each initializer, and the names of these inputs."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    names = {tensor.name for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return core().read_model(model.SerializeToString()), names
