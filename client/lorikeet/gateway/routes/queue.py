"""`/queue`: submit, status, result and cancel of requests that wait for their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.auth import KeyId
from lorikeet.gateway.endpoints import APPLICATIONS, ENDPOINTS, Endpoint
from lorikeet.gateway.execution.log_lines import LogLine
from lorikeet.gateway.queue.record import COMPLETED, IN_PROGRESS, IN_QUEUE, Record
from lorikeet.gateway.routes.event_stream import EventStream
from lorikeet.gateway.routes.openapi import input_body
from lorikeet.gateway.routes.read_json import read_json_object
from lorikeet.gateway.routes.submit_options import read_idempotency_key, read_max_queue_length, read_options
from lorikeet.gateway.services import Services, services_of

router = APIRouter(prefix="/queue", tags=["queue"])

_KEEP_ALIVE_SECONDS = 15.0  # a comment keeps the connection open through proxies
_POSITION_SECONDS = 0.5
_TRUE = ("1", "true")
_HTTP_OF_CANCEL = {"OK": 200, "CANCELLATION_REQUESTED": 202, "ALREADY_COMPLETED": 400}


def _add_submit(endpoint: Endpoint) -> None:
    async def submit(request: Request, key_id: KeyId) -> JSONResponse:
        options = read_options(request)
        record = await services_of(request).queue.submit(
            endpoint,
            await read_json_object(request),
            options,
            key_id,
            read_idempotency_key(request),
            read_max_queue_length(request),
        )
        return JSONResponse(_status(services_of(request), record, None), headers=_id_header(record))

    router.add_api_route(
        f"/{endpoint.id}",
        submit,
        methods=["POST"],
        summary=f"Submit to {endpoint.id}",
        operation_id=f"submit {endpoint.id}",
        openapi_extra=input_body(endpoint),
    )


for _endpoint in ENDPOINTS.values():
    _add_submit(_endpoint)


async def status(request: Request, request_id: str, key_id: KeyId) -> JSONResponse:
    """The state of a request: 202 while it waits or runs, 200 when it has ended."""
    record = await _find(request, request_id, key_id)
    logs = record.logs if request.query_params.get("logs", "").lower() in _TRUE else None
    return JSONResponse(
        _status(services_of(request), record, logs),
        200 if record.state == COMPLETED else 202,
        _id_header(record),
    )


async def status_stream(request: Request, request_id: str, key_id: KeyId) -> Response:
    """The state at each change, with the log lines that are new, until the request has ended."""
    record = await _find(request, request_id, key_id)
    with_logs = request.query_params.get("logs", "").lower() in _TRUE
    return EventStream(_states(services_of(request), record, with_logs), _id_header(record))


async def result(request: Request, request_id: str, key_id: KeyId) -> JSONResponse:
    """The output of a request, or the error that ended it."""
    record = await _find(request, request_id, key_id)
    if record.outcome is None:
        raise ApiError(400, "Request is still in progress", None, _id_header(record))
    outcome = record.outcome
    return JSONResponse(outcome.body, outcome.status_code, {**outcome.headers, **_id_header(record)})


async def cancel(request: Request, request_id: str, key_id: KeyId) -> JSONResponse:
    """Cancel a request that has not ended."""
    record = await _find(request, request_id, key_id)
    answer = await services_of(request).queue.cancel(record)
    return JSONResponse({"status": answer}, _HTTP_OF_CANCEL[answer], _id_header(record))


def _add_request_routes(prefix: str, is_published: bool) -> None:
    base = f"/{prefix}/requests/{{request_id}}"
    routes: list[tuple[str, Any, list[str]]] = [
        (f"{base}/status", status, ["GET"]),
        (f"{base}/status/stream", status_stream, ["GET"]),
        (base, result, ["GET"]),
        (f"{base}/response", result, ["GET"]),
        (f"{base}/cancel", cancel, ["PUT"]),
    ]
    for path, handler, methods in routes:
        router.add_api_route(path, handler, methods=methods, include_in_schema=is_published)


for _application in sorted(APPLICATIONS):
    _add_request_routes(_application, is_published=True)
for _id in sorted(ENDPOINTS.keys() - APPLICATIONS):
    _add_request_routes(_id, is_published=False)


async def _find(request: Request, request_id: str, key_id: str) -> Record:
    record = await services_of(request).queue.find(request_id, key_id)
    if record is None:
        raise _NotFound()
    return record


class _NotFound(ApiError):
    """404 in the shape of fal's status."""

    def __init__(self) -> None:
        super().__init__(404, "NOT_FOUND")

    @property
    def body(self) -> dict[str, Any]:
        return {"status": "NOT_FOUND"}


def _id_header(record: Record) -> dict[str, str]:
    return {"x-fal-request-id": record.request_id}


def _status(services: Services, record: Record, logs: list[LogLine] | None) -> dict[str, Any]:
    """The body of a status, with `logs` null when they are not asked for."""
    application = ENDPOINTS[record.endpoint].application
    url = f"{services.settings.base_url}/queue/{application}/requests/{record.request_id}"
    body: dict[str, Any] = {
        "status": record.state,
        "request_id": record.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }
    if record.state == IN_QUEUE:
        return body | {"queue_position": services.queue.board.position(record)}
    body["logs"] = None if logs is None else [asdict(line) for line in logs]
    if record.state == IN_PROGRESS or record.outcome is None:
        return body
    body["metrics"] = {"inference_time": record.outcome.inference_time}
    if not record.outcome.is_success:
        body |= {"error": record.outcome.error, "error_type": record.outcome.error_type}
    return body


async def _states(services: Services, record: Record, with_logs: bool) -> AsyncIterator[dict[str, Any] | None]:
    """The status at each change; the JavaScript client adds up the log lines of all. None: nothing changed for long."""
    sent = 0
    while True:
        # Before the yield: a slow client takes its time there, in which the record may change.
        seen, new = record.changes, record.logs[sent:]
        sent += len(new)
        body = _status(services, record, new if with_logs else None)
        yield body
        if body["status"] == COMPLETED:
            return
        async for _ in _until_changed(services, record, seen, body.get("queue_position")):
            yield None


async def _until_changed(services: Services, record: Record, seen: int, position: int | None) -> AsyncIterator[None]:
    """Wait for a change of the record or of its position since those that were sent; yield at intervals meanwhile."""
    waited = 0.0
    while not await record.changed(seen, _POSITION_SECONDS):
        if record.state == IN_QUEUE and services.queue.board.position(record) != position:
            return
        waited += _POSITION_SECONDS
        if waited >= _KEEP_ALIVE_SECONDS:
            waited = 0.0
            yield
