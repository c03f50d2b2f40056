"""`/cdn/files`: uploaded and generated files, for whoever knows their names."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.auth import storage_key_id_of
from lorikeet.gateway.execution.own_files import may_read
from lorikeet.gateway.files.stored_file import StoredFile
from lorikeet.gateway.routes.byte_range import RangeNotSatisfiable, http_date, is_unchanged, read_range
from lorikeet.gateway.services import services_of

router = APIRouter(prefix="/cdn", tags=["files"])

# What a browser shows without running anything in it. All else it saves.
_SHOWN = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp")
_MAX_AGE = 365 * 86400
_RESPONSES: dict[int | str, dict[str, object]] = {
    206: {"description": "The range that the header Range asks for"},
    304: {"description": "The client has the file already"},
    404: {"description": "No such file"},
    416: {"description": "The range begins behind the end of the file"},
}


@router.head("/files/{name}", include_in_schema=False)
@router.get("/files/{name}", responses=_RESPONSES)
async def download(request: Request, name: str) -> Response:
    """A file, or a range of it. A private one needs the key of its owner."""
    file = await _find(request, name)
    headers = _headers(file)
    if is_unchanged(request.headers, headers["ETag"], file.created_at):
        return Response(status_code=304, headers=headers)
    # what the file is, only with its bytes
    headers |= {"Content-Type": file.content_type, "Accept-Ranges": "bytes"}
    try:
        part = read_range(request.headers, file.size, headers["ETag"], file.created_at)
    except RangeNotSatisfiable as error:
        raise ApiError(416, "The range begins behind the end of the file.", None, _unsatisfied(file)) from error
    start, end = part or (0, file.size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    return StreamingResponse(_content(request, file, start, end), 206 if part else 200, headers)


async def _content(request: Request, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
    if request.method == "GET":
        async for block in services_of(request).files.read_range(file, start, end):
            yield block


async def _find(request: Request, name: str) -> StoredFile:
    file = await services_of(request).files.find(name)
    if file is None or not may_read(file, _reader(request) if file.is_private else None):
        raise ApiError(404, "No such file: it has expired, or it is private and needs the key of its owner.")
    return file


def _reader(request: Request) -> str | None:
    try:
        return storage_key_id_of(request)
    except ApiError:
        return None


def _headers(file: StoredFile) -> dict[str, str]:
    """The headers of every answer. A file is hostile: its type is not guessed, and nothing in it runs."""
    left = _MAX_AGE if file.expires_at is None else max(int(file.expires_at - time.time()), 0)
    headers = {
        "ETag": f'"{file.digest}"',
        "Last-Modified": http_date(file.created_at),
        "Cache-Control": f"{'private' if file.is_private else 'public'}, max-age={min(left, _MAX_AGE)}, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if file.is_private:
        headers["Vary"] = "Authorization"
    if file.content_type not in _SHOWN:
        headers["Content-Disposition"] = f'attachment; filename="{file.name}"'
    return headers


def _unsatisfied(file: StoredFile) -> dict[str, str]:
    return {"Content-Range": f"bytes */{file.size}"}
