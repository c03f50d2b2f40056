"""Reads an untrusted ONNX file of a pack, and tells which network it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError, Message

from lorikeet.protocol.shorten import shorten
from runtime.faces.face import SIDE, FaceError
from runtime.faces.scrfd import OUTPUTS

_MOST_BYTES = 1 << 30
_FIRST_NODES = 8  # among which InsightFace looks for arithmetic on the input
_OPERATORS = ("", "ai.onnx")  # the domains of ONNX's own operators


class OnnxModel:
    """A network with one picture as input. `content`: the file. `task`: None for the other networks of a pack.

    `scales_input`: the network itself subtracts and divides, as the first ones of ArcFace do.
    """

    def __init__(self, path: Path) -> None:
        """Raises FaceError."""
        if path.stat().st_size > _MOST_BYTES:
            raise FaceError(f"its file {shorten(path.name)} has more than {_MOST_BYTES} bytes")
        self.content = path.read_bytes()
        try:
            model = onnx.load_model_from_string(self.content)
        except DecodeError as error:
            raise FaceError(f"its file {shorten(path.name)} is no ONNX model") from error
        _check(model, path.name)
        first = {node.op_type for node in model.graph.node[:_FIRST_NODES]}
        self.scales_input = {"Sub", "Mul"} <= first
        self.side = _side(model.graph)
        self.task = _task(model.graph, self.side)


def _check(model: Any, name: str) -> None:
    """Refuses a model that names further files, or operators of programs."""
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(model)):
        raise FaceError(f"{shorten(name)} has weights in other files: expected one file with all weights")
    domains = {node.domain for node in model.graph.node} | {one.domain for one in model.opset_import}
    if others := domains.difference(_OPERATORS):
        raise FaceError(f"{shorten(name)} has operators of {shorten(min(others))}: expected ONNX's own operators")


def _tensors(message: Message) -> Iterator[Any]:
    """All tensors of a model, wherever they are. A parsed message is at most 100 levels deep."""
    for _, value in message.ListFields():
        for part in (value,) if isinstance(value, Message) else value if _is_list_of_messages(value) else ():
            if isinstance(part, onnx.TensorProto):
                yield part
            yield from _tensors(part)


def _is_list_of_messages(value: Any) -> bool:
    return not isinstance(value, str | bytes | int | float) and isinstance(value[0], Message)


def _side(graph: Any) -> int | None:
    """The side of the square pictures [1, 3, side, side] that the network takes; None: any side, or no picture."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    sizes = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    return sizes[2] if len(sizes) == 4 and sizes[2] == sizes[3] and sizes[2] else None


def _task(graph: Any, side: int | None) -> Literal["detect", "embed"] | None:
    """As InsightFace tells them apart: by the number of outputs, and by the size of the input."""
    if len(graph.output) == OUTPUTS:
        return "detect"
    return "embed" if side == SIDE and len(graph.output) == 1 else None
