"""Which calls of which client the tests run: the rows and columns of the README's table of clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.fal_clients import AnyClient, JavaScriptClient, PythonClient

_PINS: dict[str, str] = json.loads((Path(__file__).parent / "clients" / "package.json").read_text())["dependencies"]


def _javascript(title: str, package: str) -> JavaScriptClient:
    version = _PINS[package].rpartition("@")[2]
    return JavaScriptClient(f"{title} {version}", package)


LATEST = _javascript("@fal-ai/client", "@fal-ai/client")
OF_2025 = _javascript("@fal-ai/client", "fal-client-1.6.2")
FIRST = _javascript("@fal-ai/client", "fal-client-1.0.2")
SERVERLESS = _javascript("@fal-ai/serverless-client", "@fal-ai/serverless-client")
AI_SDK = _javascript("@ai-sdk/fal", "@ai-sdk/fal")
PYTHON = PythonClient("fal-client 1.0.3", "fal-client-1.0.3", is_async=False)
PYTHON_ASYNC = PythonClient("fal-client 1.0.3 async", "fal-client-1.0.3", is_async=True)
PYTHON_0 = PythonClient("fal-client 0.12.0", "fal-client-0.12.0", is_async=False)

JAVASCRIPT = (LATEST, OF_2025, FIRST, SERVERLESS)
PYTHONS = (PYTHON, PYTHON_ASYNC, PYTHON_0)
FAL = (*JAVASCRIPT, *PYTHONS)
ALL: tuple[AnyClient, ...] = (*JAVASCRIPT, AI_SDK, *PYTHONS)

# A client that is not named has no such call, or no way to be pointed at a gateway for it.
FEATURES: dict[str, tuple[AnyClient, ...]] = {
    "run": ALL,
    "subscribe with logs": FAL,
    "subscribe, streaming mode": JAVASCRIPT,
    "submit, status, result": FAL,
    "status stream": JAVASCRIPT,
    "stream": FAL,
    "stream with a browser's token": JAVASCRIPT,
    "cancel while queued": FAL,
    "cancel while running": FAL,
    "its own timeout cancels": (*JAVASCRIPT, PYTHON, PYTHON_ASYNC),
    "start timeout": (LATEST, *PYTHONS),
    "webhook with a valid signature": FAL,
    "upload": FAL,
    "upload in parts": (LATEST, OF_2025, *PYTHONS),
    "upload of a Blob in the input": JAVASCRIPT,
    "wrong key: 401": ALL,
    "invalid field: 422": ALL,
    "result of a failed request": FAL,
    "result too early: 400": JAVASCRIPT,
    "unknown request: 404": FAL,
    "configured by `requestMiddleware`": JAVASCRIPT,
    "configured by `fetch`": JAVASCRIPT,
    "configured by `proxyUrl`": (LATEST,),
}

Test = Callable[..., None]


def feature(name: str, in_verify: tuple[AnyClient, ...] = ()) -> Callable[[Test], Test]:
    """Run a test with each client that has the feature, as its parameter `client`. `in_verify`: by `make verify` only.

    What it shows is written to the README's table, see `ticks.py`.
    """

    def decorate(test: Test) -> Test:
        rows: list[Any] = [
            pytest.param(client, id=client.name, marks=[pytest.mark.verify] if client in in_verify else [])
            for client in FEATURES[name]
        ]
        return pytest.mark.feature(name)(pytest.mark.parametrize("client", rows)(test))

    return decorate
