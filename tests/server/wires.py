"""Connections that send whatever they are given, over gRPC and HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from lorikeet.protocol.errors import CANCELLED_PREFIX, DEADLINE_PREFIX
from lorikeet.protocol.tensors import IMAGE_MODEL
from tests.server.hostile import SECONDS, Answer, Hostile, Tensor

_PREFIX = f"in ensemble '{IMAGE_MODEL}', "
# A pool of its own: channels of one process share a connection otherwise.
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
_HEADER_LENGTH = "Inference-Header-Content-Length"
# Triton's HTTP endpoint answers 500 to a header whose JSON has a wrong type, before a model gets the request.
_WRONG_TYPE = "Unable to parse '"
_STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 499: "CANCELLED", 500: "INTERNAL", 503: "UNAVAILABLE"}


class GrpcWire:
    """One connection over gRPC."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address.removeprefix("grpc://"), options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def send(self, request: Hostile) -> Answer:
        return self.send_all([request])[0]

    def start(self, request: Hostile) -> Any:
        """Send it and return the call in flight, a future of gRPC."""
        message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
        for tensor in request.tensors:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(tensor.content)
        kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        for name, value in request.parameters.items():
            setattr(message.parameters[name], kinds[type(value)], value)
        return self._stub.ModelInfer.future(message, timeout=SECONDS)

    def send_all(self, requests: Sequence[Hostile]) -> list[Answer]:
        """Send them all at once, and wait for the answers."""
        calls = [self.start(request) for request in requests]
        for call, request in zip(calls, requests, strict=True):
            if request.hangs_up:
                call.cancel()
        return [answer(call) for call in calls]


def answer(call: Any) -> Answer:
    """What a call in flight ends with."""
    try:
        result = call.result()
    except grpc.FutureCancelledError:
        return Answer("CANCELLED", "")
    except grpc.RpcError as error:
        return Answer(error.code().name, str(error.details()).removeprefix(_PREFIX))
    contents = zip(result.outputs, result.raw_output_contents, strict=True)
    return Answer.of([Tensor(out.name, out.datatype, tuple(out.shape), content) for out, content in contents])


class HttpWire:
    """Sends each request over an HTTP connection of its own."""

    def __init__(self, address: str) -> None:
        self._host = address.removeprefix("http://")

    def close(self) -> None:
        """Does nothing: no connection stays open."""

    def send(self, request: Hostile) -> Answer:
        header, contents = _encode(request)
        connection = HTTPConnection(self._host, timeout=SECONDS)
        try:
            connection.request(
                "POST",
                f"/v2/models/{request.model}/infer",
                header + b"".join(contents),
                {_HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"},
            )
            return Answer("CANCELLED", "") if request.hangs_up else _answer(connection.getresponse())
        except TimeoutError:
            return Answer("DEADLINE_EXCEEDED", f"no answer after {SECONDS} s")
        except (OSError, HTTPException) as error:
            return Answer("UNAVAILABLE", repr(error))
        finally:
            connection.close()


def _encode(request: Hostile) -> tuple[bytes, list[bytes]]:
    """The JSON header, and the contents that follow it. Tensors of texts are in the JSON, as curl sends them."""
    inputs, contents = [], []
    for tensor in request.tensors:
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        texts = _texts(tensor)
        if texts is None:
            described["parameters"] = {"binary_data_size": len(tensor.content)}
            contents.append(tensor.content)
        else:
            described["data"] = texts
        inputs.append(described)
    parameters = {**request.parameters, "binary_data_output": True}
    header = {"id": request.request_id, "parameters": parameters, "inputs": inputs}
    return json.dumps(header).encode(), contents


def _texts(tensor: Tensor) -> list[str] | None:
    """The elements of BYTES as text. None when some are no text, or when the shape lies about their number.

    Triton 2.51 takes the memory that a JSON tensor's shape declares, and ends when it gets none (see README, "On a
    GPU").
    """
    items = tensor.items() if tensor.datatype == "BYTES" else None
    if not items or min(tensor.shape, default=0) < 1 or math.prod(tensor.shape) != len(items):
        return None
    try:
        return [item.decode() for item in items]
    except UnicodeDecodeError:
        return None


def _answer(response: HTTPResponse) -> Answer:
    data = response.read()
    if response.status == 200:
        return Answer.of(_decode(data, int(response.headers[_HEADER_LENGTH])))
    message = _message(data).removeprefix(_PREFIX)
    if message.startswith((DEADLINE_PREFIX, CANCELLED_PREFIX)):  # Triton 2.51 answers 400 to CANCELLED too
        return Answer("CANCELLED", message)
    if response.status == 500 and message.startswith(_WRONG_TYPE):
        return Answer("INVALID_ARGUMENT", message)
    return Answer(_STATUSES.get(response.status, f"HTTP {response.status}"), message)


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")


def _decode(data: bytes, header_length: int) -> list[Tensor]:
    found, at = [], header_length
    for output in json.loads(data[:header_length])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        found.append(Tensor(output["name"], output["datatype"], tuple(output["shape"]), data[at:end]))
        at = end
    return found
