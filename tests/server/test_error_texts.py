"""The texts of Triton's own errors name no key of shared memory, no path, and no line of code."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from deploy.local_server import LocalServer
from lorikeet.protocol.tensors import IMAGE_MODEL
from tests.server.error_texts import REQUEST, Refused, leak, post
from tests.server.hostile import CHEAP, Tensor, octets, strings

INFER = f"/v2/models/{IMAGE_MODEL}/infer"
PLAN = strings("PLAN", [b"0" * 32])
FORGED = (PLAN, strings("REPORT", [b"{"]), strings("SEAL", [b""]))

REFUSED = {
    "unknown model": Refused(model="no_such_model"),
    "a model's path": Refused(model="../prepare"),
    "unknown version": Refused(version="99"),
    "no version": Refused(version="one"),
    "no inputs": Refused(tensors=()),
    "missing input": Refused(tensors=(octets("IMAGE", b"123"),)),
    "unknown input": Refused(tensors=(REQUEST, strings("PLAN", [b"a"]))),
    "input twice": Refused(tensors=(REQUEST, REQUEST)),
    "unknown output": Refused(outputs=("PLAN",)),
    "wrong type": Refused(tensors=(Tensor("REQUEST", "INT32", (1,), bytes(4)),)),
    "unknown type": Refused(tensors=(Tensor("REQUEST", "TEXT", (1,), bytes(4)),)),
    "bfloat16": Refused(tensors=(Tensor("REQUEST", "BF16", (1,), bytes(2)),)),
    "wrong shape": Refused(tensors=(Tensor("REQUEST", "BYTES", (1, 1), REQUEST.content),)),
    "negative shape": Refused(tensors=(Tensor("REQUEST", "BYTES", (-1,), REQUEST.content),)),
    "too few bytes": Refused(tensors=(REQUEST, Tensor("IMAGE", "UINT8", (9,), b"123"))),
    "text longer than its tensor": Refused(tensors=(Tensor("REQUEST", "BYTES", (1,), struct.pack("<I", 99) + b"a"),)),
    "text without a length": Refused(tensors=(Tensor("REQUEST", "BYTES", (1,), b"\1"),)),
    "fewer texts than the shape": Refused(tensors=(REQUEST, Tensor("FILES", "BYTES", (3,), struct.pack("<I", 0)))),
    "unknown region": Refused(region="triton_region"),
    "a stage, forged plan": Refused(model="text_encoder", tensors=FORGED),
    "a stage, inputs missing": Refused(model="denoiser", tensors=(PLAN,)),
    "jobs, no JSON": Refused(model="jobs", tensors=(strings("REQUEST", [b"\xff{"]),)),
    "reserved parameter": Refused(parameters={"sequence_id": "a", "sequence_start": "b"}),
    "triton's parameter": Refused(parameters={"triton_enable_empty_final_response": "yes"}),
    "wrong parameter": Refused(parameters={"job_priority": "first"}),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_refusal_gives_nothing_away(server: LocalServer, protocol: str, name: str) -> None:
    request = REFUSED[name]
    text = request.over_grpc(server.grpc) if protocol == "grpc" else request.over_http(server.http)
    assert text and leak(text) is None


def _body(**fields: Any) -> bytes:
    """An inference request in JSON alone, which asks for the response alone."""
    tensor = {"name": "REQUEST", "datatype": "BYTES", "shape": [1], "data": [json.dumps(CHEAP)]}
    text = json.dumps({"inputs": [tensor], "outputs": [{"name": "RESPONSE"}]} | fields, ensure_ascii=False)
    return text.encode(errors="surrogateescape")


REGION = {"shared_memory_region": "a", "shared_memory_byte_size": 8}
ODD = "\udcff\udcfe"  # the bytes FF FE, which are not UTF-8
BODIES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "no JSON": (INFER, b"{", {}),
    "no object": (INFER, b"[1]", {}),
    "empty": (INFER, b"", {}),
    "nested": (INFER, b"[" * 10_000, {}),
    "id that is not UTF-8": (INFER, _body(id=ODD), {}),
    "parameter that is not UTF-8": (INFER, _body(parameters={"job_token": ODD}), {}),
    "parameter's name that is not UTF-8": (INFER, _body(parameters={ODD: "a"}), {}),
    "id that is a number": (INFER, _body(id=5), {}),
    "parameter that is an object": (INFER, _body(parameters={"job_token": {"a": 1}}), {}),
    "parameter that is a fraction": (INFER, _body(parameters={"job_priority": 1.5}), {}),
    "parameter that is null": (INFER, _body(parameters={"job_token": None}), {}),
    "output in an unknown region": (
        INFER,
        _body(
            outputs=[{"name": "RESPONSE", "parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 8}}]
        ),
        {},
    ),
    "header longer than the body": (INFER, _body(), {"Inference-Header-Content-Length": "99999999"}),
    "header's length is no number": (INFER, _body(), {"Inference-Header-Content-Length": "many"}),
    "unknown encoding": (INFER, _body(), {"Content-Encoding": "zip"}),
    "damaged encoding": (INFER, _body(), {"Content-Encoding": "gzip"}),
    "restricted API": ("/v2/systemsharedmemory/region/a/register", b'{"key": "/a", "byte_size": 8}', {}),
    "repository": ("/v2/repository/index", b"{}", {}),
    "unknown page": ("/v2/../../etc/passwd", b"", {}),
}


@pytest.mark.parametrize("name", BODIES)
def test_an_odd_http_request_gives_nothing_away(server: LocalServer, name: str) -> None:
    path, body, headers = BODIES[name]
    _, text = post(server.http, path, body, headers)
    assert leak(text) is None
