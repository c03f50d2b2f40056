"""A file of this package that a browser reads, with an ETag."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class StaticFile:
    """The content of a file, in memory. Raises KeyError for a suffix without a media type."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.media_type = MEDIA_TYPES[path.suffix]
        self.etag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def response(self, request: Request, headers: dict[str, str]) -> Response:
        """The file; 304 without it if the browser's copy is this one."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", **headers}
        if self.etag in _etags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def _etags(header: str) -> list[str]:
    # A proxy that compresses makes the tag weak.
    return [part.strip().removeprefix("W/") for part in header.split(",")]
