"""The gateway's web application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from lorikeet.gateway.api_error import ERROR_TYPE, TIMEOUT_TYPE, ApiError, internal_error
from lorikeet.gateway.browser_guard import LOOPBACK_ORIGIN
from lorikeet.gateway.endpoints import ENDPOINTS
from lorikeet.gateway.http_metrics import HttpMetrics
from lorikeet.gateway.metrics import GatewayMetrics
from lorikeet.gateway.routes import downloads, pages, queue, run, storage, uploads
from lorikeet.gateway.routes.health import health_router
from lorikeet.gateway.routes.metrics import metrics_router
from lorikeet.gateway.routes.openapi import publish_schemas
from lorikeet.gateway.routes.proxy import FalProxy
from lorikeet.gateway.services import Services
from lorikeet.gateway.settings import GatewaySettings

_EXPOSED = ("x-fal-request-id", ERROR_TYPE, TIMEOUT_TYPE, "etag", "accept-ranges", "content-range")


def create_app(settings: GatewaySettings) -> FastAPI:
    """The application; its services start and stop with it."""
    metrics = GatewayMetrics(list(ENDPOINTS))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = Services(settings, metrics)
        await app.state.services.start()
        yield
        await app.state.services.stop()

    app = FastAPI(
        title="Lorikeet",
        version=version("lorikeet"),
        lifespan=lifespan,
        # FastAPI's pages load their scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    for part in (run, queue, storage, uploads, downloads, pages):
        app.include_router(part.router)
    app.include_router(metrics_router(metrics, settings.watched_servers, lambda: app.state.services.note_levels()))
    probes = {
        "queue": lambda: app.state.services.check_queue(),
        "files": lambda: app.state.services.check_files(),
    }
    app.include_router(health_router(probes, settings.watched_servers))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    app.add_middleware(HttpMetrics, metrics=metrics)  # inside the proxy, whose requests it counts by their targets
    app.add_middleware(FalProxy)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_origin_regex=LOOPBACK_ORIGIN,
        allow_methods=["GET", "HEAD", "POST", "PUT"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )
    publish_schemas(app)
    return app


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response()


async def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    detail = [{"loc": item["loc"], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
    return JSONResponse({"detail": detail}, 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = f"Path {request.url.path} not found" if error.status_code == 404 else error.detail
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    return internal_error(error).response()
