"""A KServe v2 server over gRPC that records its requests and sends scripted answers."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from lorikeet.protocol.tensors import IMAGE_MODEL

OUTPUT = {"images": [{"url": ""}], "seed": 7, "has_nsfw_concepts": [False], "timings": {"denoiser": 1.5}}


@dataclass
class ScriptedError(Exception):
    code: grpc.StatusCode
    message: str


@dataclass
class Received:
    id: str
    parameters: dict[str, str]
    inputs: dict[str, list[bytes]]
    outputs: list[str]
    metadata: dict[str, str]

    @property
    def request(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.inputs["REQUEST"][0])
        return found


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The images are sent once `gate` is set. A cancel sets `cancelled` and `gate`."""

    images: list[bytes] = field(default_factory=list)
    output: dict[str, Any] = field(default_factory=lambda: dict(OUTPUT))
    latents: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    error: ScriptedError | None = None
    statuses: Iterator[dict[str, Any]] = field(default_factory=lambda: iter(()))
    is_ready: bool = True
    received: list[Received] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.gate.set()
        self._server.stop(0).wait()

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=self.is_ready and request.name == IMAGE_MODEL)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        try:
            tensors = self._images(request, context) if request.model_name == IMAGE_MODEL else self._job(request)
        except ScriptedError as error:
            context.abort(error.code, error.message)
        return _reply(request, tensors)

    def _images(self, request: Any, context: grpc.ServicerContext) -> dict[str, npt.NDArray[Any]]:
        self.received.append(_received(request, context))
        self.arrived.set()
        self.gate.wait(10)
        if self.cancelled.is_set():
            raise ScriptedError(grpc.StatusCode.CANCELLED, "cancelled")
        if self.error is not None:
            raise self.error
        return {
            "RESPONSE": _bytes([json.dumps(self.output).encode()]),
            "IMAGES": _bytes(self.images),
            **self.latents,
        }

    def _job(self, request: Any) -> dict[str, npt.NDArray[Any]]:
        job = json.loads(deserialize_bytes_tensor(request.raw_input_contents[0])[0])
        self.jobs.append(job)
        known = [r for r in self.received if (r.id, r.parameters["job_token"]) == (job["request_id"], job["job_token"])]
        if not known:
            raise ScriptedError(grpc.StatusCode.NOT_FOUND, "no such job")
        if job["action"] == "cancel":
            self.cancelled.set()
            self.gate.set()
            return {"RESPONSE": _bytes([b'{"status": "cancelled"}'])}
        return {"RESPONSE": _bytes([json.dumps(next(self.statuses, {"status": "queued"})).encode()])}


def _received(request: Any, context: grpc.ServicerContext) -> Received:
    inputs = zip(request.inputs, request.raw_input_contents, strict=True)
    return Received(
        id=request.id,
        parameters={name: value.string_param for name, value in request.parameters.items()},
        inputs={tensor.name: list(deserialize_bytes_tensor(raw)) for tensor, raw in inputs},
        outputs=[output.name for output in request.outputs],
        metadata=dict(context.invocation_metadata()),
    )


def _reply(request: Any, tensors: dict[str, npt.NDArray[Any]]) -> Any:
    reply = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    for output in request.outputs:
        array = tensors[output.name]
        is_bytes = array.dtype == np.object_
        reply.outputs.add(name=output.name, datatype="BYTES" if is_bytes else "FP32", shape=array.shape)
        raw = serialize_byte_tensor(array) if is_bytes else array
        reply.raw_output_contents.append(raw.item() if is_bytes and raw.size else raw.tobytes())
    return reply


def _bytes(contents: list[bytes]) -> npt.NDArray[Any]:
    array = np.empty(len(contents), dtype=np.object_)
    array[:] = contents
    return array
