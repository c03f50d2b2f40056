"""Parses an exported graph into a TensorRT network. The values of weights are optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch

from export.errors import ExportError
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.messages import MESSAGES

_DTYPES = {
    onnx.TensorProto.FLOAT: trt.DataType.FLOAT,
    onnx.TensorProto.FLOAT16: trt.DataType.HALF,
    onnx.TensorProto.BFLOAT16: trt.DataType.BF16,
}
_ALIGNMENT = 64  # bytes between the addresses of two weights


class WeightInfo(NamedTuple):
    """A weight of a network: its dtype, how many numbers it has, and the address of its values."""

    dtype: trt.DataType
    size: int
    address: int

    @property
    def descriptor(self) -> trt.Weights:
        return trt.Weights(self.dtype, self.address, self.size)


@dataclass(frozen=True)
class ParsedNetwork:
    """`weights`: by parameter name. `memory` holds their values and must outlive the build, as must the parser.

    Without values, all weights overlap in memory: TensorRT tells them apart by their addresses.
    """

    builder: trt.Builder
    network: trt.INetworkDefinition
    weights: Mapping[str, WeightInfo]
    parser: trt.OnnxParser
    memory: object


def parse(model: onnx.ModelProto, values: Mapping[str, torch.Tensor] | None) -> ParsedNetwork:
    """`values`: of all initializers, contiguous, on the CPU, in the dtypes of the graph. Raises ExportError."""
    builder = trt.Builder(MESSAGES)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, MESSAGES)
    if values is None:
        memory = _overlapping_memory(model)
        base = memory.ctypes.data + -memory.ctypes.data % _ALIGNMENT
        weights = {
            tensor.name: _info(tensor, base + _ALIGNMENT * place)
            for place, tensor in enumerate(model.graph.initializer)
        }
    else:
        weights = {tensor.name: _info(tensor, values[tensor.name].data_ptr()) for tensor in model.graph.initializer}
    is_parsed = parser.load_model_proto(model.SerializeToString())
    for tensor in model.graph.initializer:
        address, nbytes = weights[tensor.name].address, _nbytes(tensor)
        is_parsed = is_parsed and parser.load_initializer(tensor.name, address, nbytes)
    if not (is_parsed and parser.parse_model_proto()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors]
        raise ExportError(f"{flavour.NAME} cannot parse the graph: {'; '.join(reasons) or MESSAGES.last_error}")
    return ParsedNetwork(builder, network, weights, parser, values if values is not None else memory)


def _overlapping_memory(model: onnx.ModelProto) -> npt.NDArray[np.uint8]:
    """Zeros in which each weight starts a little after the one before: as large as the largest weight."""
    tensors = model.graph.initializer
    largest = max((_nbytes(tensor) for tensor in tensors), default=0)
    return np.zeros(largest + _ALIGNMENT * (len(tensors) + 1), np.uint8)


def _info(tensor: onnx.TensorProto, address: int) -> WeightInfo:
    return WeightInfo(_DTYPES[tensor.data_type], int(np.prod(tensor.dims, dtype=np.int64)), address)


def _nbytes(tensor: onnx.TensorProto) -> int:
    return int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
