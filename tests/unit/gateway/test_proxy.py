"""The proxy's targets: parts of this gateway, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lorikeet.gateway.routes.proxy import PROXY_PATH, TARGET, FalProxy


async def _echo(request: Request) -> JSONResponse:
    return JSONResponse({"path": request.url.path, "query": request.url.query, "method": request.method})


CLIENT = TestClient(FalProxy(Starlette(routes=[Route("/{path:path}", _echo, methods=["GET", "POST", "PUT"])])))


def through(target: str, method: str = "GET") -> Any:
    return CLIENT.request(method, PROXY_PATH, headers={TARGET: target})


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (
            "https://queue.fal.run/fal-ai/lora/requests/1/status?logs=1",
            "/queue/fal-ai/lora/requests/1/status",
            "logs=1",
        ),
        ("https://fal.run/fal-ai/lora", "/run/fal-ai/lora", ""),
        ("https://rest.fal.ai/storage/upload/initiate?a=b%2Fc", "/rest/storage/upload/initiate", "a=b%2Fc"),
        ("https://rest.alpha.fal.ai/tokens/", "/rest/tokens/", ""),
    ],
)
def test_a_target_of_fal_is_a_path_of_the_gateway(target: str, path: str, query: str) -> None:
    assert through(target, "POST").json() == {"path": path, "query": query, "method": "POST"}


@pytest.mark.parametrize(
    "target",
    [
        "",
        "http://queue.fal.run/a",
        "https://169.254.169.254/latest",
        "https://fal.run.example.com/a",
        "https://user@fal.run/a",
        "https://fal.run:8080/a",
        "https://[::1/a",
        "file:///etc/passwd",
    ],
)
def test_other_targets_are_refused(target: str) -> None:
    reply = through(target)
    assert (reply.status_code, reply.text) == (400, "Invalid request")


def test_other_paths_pass_unchanged() -> None:
    assert CLIENT.get("/health?x=1").json()["path"] == "/health"
