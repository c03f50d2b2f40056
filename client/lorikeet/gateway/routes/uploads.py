"""`/cdn`: receives the bytes of uploads, whole or in parts, in the two ways of fal's JavaScript and Python clients."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse
from typing_extensions import Self

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.auth import StorageKeyId, upload_of
from lorikeet.gateway.files.lifecycle import read_lifecycle
from lorikeet.gateway.files.names import DEFAULT_TYPE
from lorikeet.gateway.routes.openapi import bytes_body, json_body
from lorikeet.gateway.routes.read_json import read_json_model
from lorikeet.gateway.routes.storage import sign_upload
from lorikeet.gateway.routes.upload_body import body_chunks, declared_size, upload_errors
from lorikeet.gateway.services import services_of

router = APIRouter(prefix="/cdn", tags=["files"])

_MAX_PARTS = 10_000
_FILE_NAME = "x-fal-file-name"

Number = Annotated[int, Path(ge=1, le=_MAX_PARTS)]
Token = Annotated[str, Query(description="From the upload's address.")]


class SentPart(BaseModel):
    """A part that the client has sent. `etag`: from the answer to it, with or without quotes."""

    part_number: int = Field(alias="partNumber", ge=1, le=_MAX_PARTS)
    etag: Annotated[str, StringConstraints(max_length=80)]


class Completion(BaseModel):
    """All parts of a file, in any order."""

    parts: list[SentPart] = Field(min_length=1, max_length=_MAX_PARTS)

    @model_validator(mode="after")
    def _has_each_once(self) -> Self:
        if len({part.part_number for part in self.parts}) < len(self.parts):
            raise ValueError("a part number occurs twice: name each part once")
        return self


@router.post("/files/upload", openapi_extra=bytes_body())
async def upload(request: Request, key_id: StorageKeyId) -> dict[str, str]:
    """Store a file."""
    services, headers = services_of(request), request.headers
    lifecycle = read_lifecycle(headers, services.settings.keep_files_s)
    limit = services.settings.max_upload_bytes
    with upload_errors():
        declared_size(request, limit)
        stored = await services.files.upload(
            body_chunks(request),
            limit,
            key_id,
            headers.get("content-type", DEFAULT_TYPE),
            lifecycle,
            unquote(headers.get(_FILE_NAME, "")),
        )
    return {"access_url": services.files.url(stored.name)}


@router.post("/files/upload/multipart")
async def begin_multipart(request: Request, key_id: StorageKeyId) -> dict[str, str]:
    """Begin a file in parts."""
    services, headers = services_of(request), request.headers
    lifecycle = read_lifecycle(headers, services.settings.keep_files_s)
    content_type, file_name = headers.get("content-type", DEFAULT_TYPE), unquote(headers.get(_FILE_NAME, ""))
    with upload_errors():
        name = await services.files.begin(key_id, content_type, lifecycle, file_name)
    return {"access_url": services.files.url(name), "uploadId": sign_upload(services, name, key_id)}


@router.put("/files/{name}/multipart/{upload_id}/{number}", openapi_extra=bytes_body())
async def put_part(request: Request, name: str, upload_id: str, number: Number, key_id: StorageKeyId) -> JSONResponse:
    """Store a part of a file that `begin_multipart` began. Clients may send several at a time."""
    _check_owner(request, upload_id, name, key_id)
    return await _store_part(request, name, number)


@router.post("/files/{name}/multipart/{upload_id}/complete", openapi_extra=json_body(Completion))
async def complete_multipart(request: Request, name: str, upload_id: str, key_id: StorageKeyId) -> dict[str, str]:
    """Make the file of its parts."""
    _check_owner(request, upload_id, name, key_id)
    return await _complete(request, name)


@router.put("/uploads/{name}", openapi_extra=bytes_body())
async def put_file(request: Request, name: str, token: Token) -> dict[str, str]:
    """Store the whole file at the address that `initiate` returned."""
    upload_of(request, token, name)
    services = services_of(request)
    limit = services.settings.max_upload_bytes
    with upload_errors():
        size = declared_size(request, limit)
        digest = await services.files.write_part(name, 1, body_chunks(request), limit if size is None else size, limit)
        await services.files.complete(name, [(1, digest)])
    return {"access_url": services.files.url(name)}


@router.put("/uploads/{name}/{number}", openapi_extra=bytes_body())
async def put_part_at_address(request: Request, name: str, number: Number, token: Token) -> JSONResponse:
    """Store a part of the file."""
    upload_of(request, token, name)
    return await _store_part(request, name, number)


@router.post("/uploads/{name}/complete", openapi_extra=json_body(Completion))
async def complete_at_address(request: Request, name: str, token: Token) -> dict[str, str]:
    """Make the file of its parts."""
    upload_of(request, token, name)
    return await _complete(request, name)


def _check_owner(request: Request, upload_id: str, name: str, key_id: str) -> None:
    if upload_of(request, upload_id, name) != key_id:
        raise ApiError(401, "The upload belongs to another key.")


async def _store_part(request: Request, name: str, number: int) -> JSONResponse:
    services = services_of(request)
    limit = services.settings.max_upload_bytes
    with upload_errors():
        size = declared_size(request, limit)
        if size is None:
            # Without it, each of many parts at a time would have to reserve all that the file may still grow.
            raise ApiError(411, "A part of a file needs the header Content-Length.", "bad_request")
        digest = await services.files.write_part(name, number, body_chunks(request), size, limit)
    etag = f'"{digest}"'
    return JSONResponse({"partNumber": number, "etag": etag}, headers={"ETag": etag})


async def _complete(request: Request, name: str) -> dict[str, Any]:
    services = services_of(request)
    completion = await read_json_model(request, Completion)
    with upload_errors():
        await services.files.complete(name, [(part.part_number, part.etag.strip('"')) for part in completion.parts])
    return {"access_url": services.files.url(name)}
