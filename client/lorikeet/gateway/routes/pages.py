"""`/`: the playground page, its files, and what it must know of this gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorikeet.gateway.endpoints import IMAGE_TO_IMAGE
from lorikeet.gateway.routes.static_file import MEDIA_TYPES, StaticFile
from lorikeet.gateway.services import Services, services_of
from lorikeet.schema import ImageSizePreset, ImageToImageInput, size_in_pixels

router = APIRouter(include_in_schema=False)

_INDEX = "index.html"
_FOLDER = Path(__file__).parents[1] / "playground"
# Read once: the names are the only ones that a request can reach.
_FILES = {path.name: StaticFile(path) for path in _FOLDER.iterdir() if path.suffix in MEDIA_TYPES}


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    """The page."""
    return _FILES[_INDEX].response(request, _security_headers(services_of(request)))


@router.get("/playground/config.json")
def config(request: Request) -> JSONResponse:
    """The input's schema, and the settings of the gateway on which the page depends."""
    services = services_of(request)
    return JSONResponse(_config(services), headers={"Cache-Control": "no-store"})


@router.api_route("/playground/{name}", methods=["GET", "HEAD"])
def page_file(request: Request, name: str) -> Response:
    """A file of the page."""
    if name not in _FILES or name == _INDEX:
        raise HTTPException(404)
    return _FILES[name].response(request, {"X-Content-Type-Options": "nosniff"})


def _config(services: Services) -> dict[str, Any]:
    return {
        "endpoint": IMAGE_TO_IMAGE.id,
        "base_url": services.settings.base_url,
        "needs_key": not (services.keys.is_empty() and services.settings.is_loopback),
        "schema": ImageToImageInput.model_json_schema(),
        "size_presets": {preset.value: size_in_pixels(preset) for preset in ImageSizePreset},
    }


def _security_headers(services: Services) -> dict[str, str]:
    """The page loads and calls nothing but this gateway, under the address of the request or its public one."""
    public = urlsplit(services.settings.base_url)
    own = f"'self' {public.scheme}://{public.netloc}"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": f"{own} blob: data:",
        "connect-src": own,
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
