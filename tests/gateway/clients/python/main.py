"""Runs one call of fal's Python client. Standard input: {call, is_async, rest, cdn, part_bytes, arguments}. The last
line of standard output: {value} or {error}, as JSON.

`rest`, `cdn`: where uploads go, which no variable of the client sets. `part_bytes`: uploads larger than this travel in
parts of this size.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import sys
from typing import Any

import fal_client.client

from tests.gateway.clients.python import async_calls, calls


def main() -> None:
    job = json.load(sys.stdin)
    fal_client.client.REST_URL, fal_client.client.CDN_URL = job["rest"], job["cdn"]
    if job["part_bytes"]:
        fal_client.client.MULTIPART_THRESHOLD = fal_client.client.MULTIPART_CHUNK_SIZE = job["part_bytes"]
    try:
        answer = {"value": _call(job)}
    except Exception as error:
        answer = {"error": _described(error)}
    print(f"\n{json.dumps(answer)}")


def _call(job: dict[str, Any]) -> Any:
    function = getattr(async_calls if job["is_async"] else calls, job["call"])
    arguments = job["arguments"]
    if "content" in arguments:
        arguments["content"] = base64.b64decode(arguments["content"])
    result = function(**arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def _described(error: Exception) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return {
        "type": type(error).__name__,
        "message": getattr(error, "message", str(error)),
        "status": getattr(error, "status_code", None),
        "body": _body(response),
        "request_id": _request_id(error, response),
        "error_type": getattr(error, "error_type", None),
    }


def _request_id(error: Exception, response: Any) -> str | None:
    header: str | None = None if response is None else response.headers.get("x-fal-request-id")
    return header or getattr(error, "request_id", None)


def _body(response: Any) -> Any:
    try:
        return response.json()
    except (AttributeError, ValueError):
        return None


if __name__ == "__main__":
    main()
