"""`/rest`: addresses for uploads, tokens for storage and for browsers, and the public key of webhooks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse

from lorikeet.gateway.auth import BROWSER_TOKEN, STORAGE_TOKEN, UPLOAD_TOKEN, KeyId
from lorikeet.gateway.files.lifecycle import read_lifecycle
from lorikeet.gateway.files.names import DEFAULT_TYPE
from lorikeet.gateway.files.rows import UNFINISHED_SECONDS
from lorikeet.gateway.routes.openapi import json_body
from lorikeet.gateway.routes.read_json import read_json_model
from lorikeet.gateway.routes.upload_body import upload_errors
from lorikeet.gateway.services import Services, services_of

router = APIRouter(prefix="/rest", tags=["storage"])

_STORAGE_TOKEN_SECONDS = 3600
_MAX_BROWSER_TOKEN_SECONDS = 3600


class NewFile(BaseModel):
    """A file that its client will upload."""

    content_type: str = DEFAULT_TYPE
    file_name: str = ""


class BrowserTokenRequest(BaseModel):
    """`allowed_apps`: aliases (`lora`) or owner and alias (`fal-ai/lora`). `token_expiration`: seconds."""

    allowed_apps: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=32
    )
    token_expiration: int = Field(120, ge=1, le=_MAX_BROWSER_TOKEN_SECONDS)


async def initiate(request: Request, key_id: KeyId) -> dict[str, str]:
    """Addresses for a new file: PUT its bytes to `upload_url`, then `file_url` names it."""
    services = services_of(request)
    new = await read_json_model(request, NewFile)
    lifecycle = read_lifecycle(request.headers, services.settings.keep_files_s)
    with upload_errors():
        name = await services.files.begin(key_id, new.content_type, lifecycle, new.file_name)
    token = sign_upload(services, name, key_id)
    return {
        "upload_url": f"{services.settings.base_url}/cdn/uploads/{name}?token={token}",
        "file_url": services.files.url(name),
    }


# `storage_type` in the query names one of fal's own stores; the gateway has one. Both addresses take a file whole, and
# in parts.
for _path in ("/storage/upload/initiate", "/storage/upload/initiate-multipart"):
    router.add_api_route(_path, initiate, methods=["POST"], openapi_extra=json_body(NewFile))


@router.post("/storage/auth/token")
async def storage_token(request: Request, key_id: KeyId) -> dict[str, str]:
    """A token for uploads to the CDN in place of the key."""
    services = services_of(request)
    expires_at = datetime.now(timezone.utc) + timedelta(seconds=_STORAGE_TOKEN_SECONDS)
    return {
        "token": services.tokens.sign(STORAGE_TOKEN, {"key_id": key_id}, _STORAGE_TOKEN_SECONDS),
        "token_type": "Bearer",
        "base_url": f"{services.settings.base_url}/cdn",
        "expires_at": expires_at.isoformat(),
    }


@router.post("/tokens/", openapi_extra=json_body(BrowserTokenRequest))
async def browser_token(request: Request, key_id: KeyId) -> JSONResponse:
    """A short-lived token for a web page, which runs and queues the named applications only."""
    wanted = await read_json_model(request, BrowserTokenRequest)
    payload = {"key_id": key_id, "allowed_apps": wanted.allowed_apps}
    return JSONResponse(services_of(request).tokens.sign(BROWSER_TOKEN, payload, wanted.token_expiration))


@router.get("/.well-known/jwks.json")
async def key_set(request: Request) -> dict[str, Any]:
    """The public key with which receivers verify webhooks."""
    return services_of(request).signer.key_set()


def sign_upload(services: Services, name: str, key_id: str) -> str:
    """The token that lets its holder send the bytes of one file."""
    return services.tokens.sign(UPLOAD_TOKEN, {"name": name, "key_id": key_id}, UNFINISHED_SECONDS)
