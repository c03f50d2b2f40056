"""The queue protocol as plain HTTP, for tests that look at statuses and headers or survive a dead gateway."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_TO_IMAGE = "fal-ai/lora/image-to-image"
APPLICATION = "fal-ai/lora"

# A gateway that ends closes connections in each of these ways.
UNREACHABLE = (urllib.error.URLError, ConnectionError, http.client.HTTPException, TimeoutError)


@dataclass(frozen=True)
class Answer:
    """`body`: parsed JSON, or None."""

    status: int
    body: Any
    headers: Mapping[str, str]


def ask(
    url: str,
    method: str = "GET",
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
    authority: Path | None = None,
) -> Answer:
    """One request. Raises one of UNREACHABLE when there is no answer. `authority`: trusted beside the known ones."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        context = ssl.create_default_context(cafile=authority) if authority else None
        with urllib.request.urlopen(request, timeout=timeout, context=context) as reply:
            return _answer(reply.status, reply.read(), reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.read(), error.headers)


def submit(gateway: str, body: object, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    return ask(f"{gateway}/queue/{IMAGE_TO_IMAGE}{query}", "POST", body, headers)


def request_url(gateway: str, request_id: str) -> str:
    return f"{gateway}/queue/{APPLICATION}/requests/{request_id}"


def status(gateway: str, request_id: str) -> Answer:
    return ask(f"{request_url(gateway, request_id)}/status?logs=1")


def result(gateway: str, request_id: str) -> Answer:
    return ask(request_url(gateway, request_id))


def wait_until(gateway: str, request_id: str, state: str, timeout: float = 60) -> Answer:
    """Poll until the request has this state. Raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (found := status(gateway, request_id)).body.get("status") != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def _answer(code: int, content: bytes, headers: Any) -> Answer:
    is_json = headers.get_content_type() == "application/json"
    return Answer(code, json.loads(content) if is_json and content else None, headers)
