"""Requests that Triton itself refuses, over gRPC and HTTP, and what an error's text must not contain."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from lorikeet.protocol.tensors import IMAGE_MODEL
from tests.server.hostile import CHEAP, SECONDS, Tensor, strings

REQUEST = strings("REQUEST", [json.dumps(CHEAP).encode()])
# A key of shared memory, a path of this machine, a stack trace, or the name of a source file.
_LEAK = re.compile(
    r"shm_region|lorikeet-\d|/dev/shm/|Traceback|\bAt:|\.py\b|model_repository"
    r"|(?<![\w.:/])/(work|tmp|home|root|usr|opt|proc|var|etc|mnt|srv)/"
)


def leak(text: str) -> str | None:
    """What a text gives away, or None."""
    found = _LEAK.search(text)
    return found and text[max(found.start() - 40, 0) : found.end() + 80]


@dataclass(frozen=True)
class Refused:
    """A request that Triton refuses. `region`: the name of a region of shared memory that holds the first input."""

    tensors: tuple[Tensor, ...] = (REQUEST,)
    model: str = IMAGE_MODEL
    version: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    region: str = ""

    def over_grpc(self, address: str) -> str:
        """The error's text."""
        message = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        for tensor in self.tensors:
            given = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if self.region:
                given.parameters["shared_memory_region"].string_param = self.region
                given.parameters["shared_memory_byte_size"].int64_param = len(tensor.content)
            else:
                message.raw_input_contents.append(tensor.content)
        for name in self.outputs:
            message.outputs.add(name=name)
        for name, value in self.parameters.items():
            setattr(message.parameters[name], "int64_param" if isinstance(value, int) else "string_param", value)
        with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
            try:
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=SECONDS)
            except grpc.RpcError as error:
                return str(error.details())
        raise AssertionError("the request succeeded")

    def over_http(self, address: str) -> str:
        """The error's text."""
        head: dict[str, Any] = {"inputs": [], "parameters": dict(self.parameters)}
        for tensor in self.tensors:
            size: dict[str, Any] = {"binary_data_size": len(tensor.content)}
            if self.region:
                size = {"shared_memory_region": self.region, "shared_memory_byte_size": len(tensor.content)}
            given = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "parameters": size}
            head["inputs"].append(given)
        if self.outputs:
            head["outputs"] = [{"name": name} for name in self.outputs]
        text = json.dumps(head).encode()
        version = f"/versions/{self.version}" if self.version else ""
        content = b"" if self.region else b"".join(tensor.content for tensor in self.tensors)
        headers = {"Inference-Header-Content-Length": str(len(text))}
        code, answer = post(address, f"/v2/models/{self.model}{version}/infer", text + content, headers)
        assert code >= 400, "the request succeeded"
        return answer


def post(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """The status and the body of an HTTP answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=SECONDS)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
