"""Reads the bytes of an upload as they come, and answers when they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect, Request

from lorikeet.gateway.api_error import ApiError, internal_error
from lorikeet.gateway.files.stored_file import (
    FileTooLarge,
    TooManyAttempts,
    UploadConflict,
    UploadError,
    UploadNotFound,
)
from lorikeet.gateway.storage_full import is_storage_full

IDLE_SECONDS = 60.0  # after which a client that sends nothing is dropped

_STATUS: dict[type[UploadError], int] = {
    FileTooLarge: 413,
    UploadNotFound: 404,
    UploadConflict: 400,  # not 409: the Python client repeats a request that gets it
    TooManyAttempts: 429,
}


def declared_size(request: Request, limit: int) -> int | None:
    """The body's Content-Length; None when the client does not know it. Raises FileTooLarge before a byte is read."""
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > len(str(limit)) or int(text) > limit:
        raise FileTooLarge(limit)
    return int(text)


async def body_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body. Raises ApiError (408) when the client sends nothing for `IDLE_SECONDS`."""
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), IDLE_SECONDS)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            message = f"Nothing was received for {IDLE_SECONDS:g} seconds. Send the file again."
            raise ApiError(408, message, "bad_request", {"Connection": "close"}) from error


@contextmanager
def upload_errors() -> Iterator[None]:
    """Raise ApiError for what ends an upload."""
    try:
        yield
    except UploadError as error:
        raise ApiError(_STATUS[type(error)], str(error), "bad_request") from error
    except ClientDisconnect as error:
        raise ApiError(499, "The client closed the connection.", "client_disconnected") from error
    except (OSError, DBAPIError) as error:
        if not is_storage_full(error):
            raise
        raise internal_error(error) from error
