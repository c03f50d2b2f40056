"""`GET /health`: which of the gateway's parts, Triton servers and their stages is down. `GET /health/live`: it runs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from fastapi import APIRouter
from starlette.responses import JSONResponse

from lorikeet.gateway.shared_call import SharedCall
from lorikeet.gateway.watched_servers import NoAnswer, WatchedServer, get

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[object]]

OK, DEGRADED, DOWN, UNKNOWN = "ok", "degraded", "down", "unknown"

_SHARED_SECONDS = 1.0
_PROBE_SECONDS = 2.0
_MAX_BYTES = 64 << 10  # a supervisor's answer has about 1 KiB
_OF_SUPERVISOR = ("status", "sick", "restarts", "stages")


def health_router(probes: Mapping[str, Probe], servers: Sequence[WatchedServer]) -> APIRouter:
    """The routes. `probes`: the parts without which no request is accepted, such as `queue` and `files`.

    A probe raises when its part is down. `/health` is 503 when a part is, or when no server can run a request.
    """
    router = APIRouter(tags=["health"])
    checked = SharedCall(lambda: _check(probes, servers), _SHARED_SECONDS)

    @router.get("/health", summary="Which of gateway, queue, files, Triton servers and stages is down")
    async def health() -> JSONResponse:
        found = await checked()
        return JSONResponse(found, 503 if found["status"] == DOWN else 200, {"Cache-Control": "no-store"})

    @router.get("/health/live", summary="Whether the gateway runs")
    async def live() -> dict[str, str]:
        return {"status": OK}

    return router


async def _check(probes: Mapping[str, Probe], servers: Sequence[WatchedServer]) -> dict[str, Any]:
    of_parts, of_servers = await asyncio.gather(
        asyncio.gather(*(_part(name, probe) for name, probe in probes.items())),
        asyncio.gather(*(_server(server) for server in servers)),
    )
    parts = dict(zip(probes, of_parts, strict=True))
    return {"status": _word(of_parts, of_servers), "gateway": {"status": OK}, **parts, "servers": list(of_servers)}


def _word(parts: Sequence[dict[str, Any]], servers: Sequence[dict[str, Any]]) -> str:
    can_run = [server["status"] in (OK, UNKNOWN) for server in servers]
    if any(part["status"] != OK for part in parts) or not any(can_run):
        return DOWN
    return OK if all(can_run) else DEGRADED


async def _part(name: str, probe: Probe) -> dict[str, str]:
    try:
        with anyio.fail_after(_PROBE_SECONDS):
            await probe()
    except TimeoutError:
        return {"status": DOWN, "message": f"no answer in {_PROBE_SECONDS:g} s"}
    except Exception as error:
        # The text of the error may hold addresses and user names, so only the log has it.
        log.warning("%s is down: %s", name, error)
        return {"status": DOWN, "message": f"{type(error).__name__}; the gateway's log has its text"}
    return {"status": OK}


async def _server(server: WatchedServer) -> dict[str, Any]:
    """What its supervisor says: `status` is `ok`, `starting`, `sick` or `stopping`. `down`: it says nothing."""
    found: dict[str, Any] = {"server": server.name, "status": UNKNOWN}
    if server.status_url is None:
        return found
    try:
        _, body = await get(server.status_url, "/health", _MAX_BYTES)
        said = json.loads(body)
        return found | {name: said[name] for name in _OF_SUPERVISOR}
    except NoAnswer as error:
        return found | {"status": DOWN, "message": f"the supervisor does not answer: {error}"}
    except (ValueError, TypeError, KeyError, RecursionError):
        return found | {"status": DOWN, "message": "what answers at its status URL is no supervisor of Lorikeet"}
