"""Triton's APIs that read memory or change the server are refused; those that clients need are open."""

from __future__ import annotations

from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from deploy.local_server import LocalServer
from lorikeet.protocol.tensors import IMAGE_MODEL

RESTRICTED: dict[str, tuple[Any, ...]] = {
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("region", "/lorikeet-test", 8),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "get_model_repository_index": (),
    "load_model": (IMAGE_MODEL,),
    "unload_model": (IMAGE_MODEL,),
    "get_trace_settings": (),
    "update_trace_settings": (None, {"trace_level": ["TIMESTAMPS"]}),
    "get_log_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
}


@pytest.fixture(params=["grpc", "http"])
def connection(server: LocalServer, request: pytest.FixtureRequest) -> Any:
    if request.param == "grpc":
        return tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))
    return tritonclient.http.InferenceServerClient(server.http.removeprefix("http://"))


@pytest.mark.parametrize("method", RESTRICTED)
def test_restricted_apis_are_refused(connection: Any, method: str) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        getattr(connection, method)(*RESTRICTED[method])


def test_health_metadata_configuration_and_statistics_are_open(connection: Any) -> None:
    assert connection.is_server_ready() and connection.is_model_ready(IMAGE_MODEL)
    assert connection.get_server_metadata()
    assert connection.get_model_metadata(IMAGE_MODEL)
    assert connection.get_model_config(IMAGE_MODEL)
    assert connection.get_inference_statistics(IMAGE_MODEL)
