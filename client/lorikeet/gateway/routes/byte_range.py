"""Conditions and ranges of a download (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import format_datetime, parsedate_to_datetime

from starlette.datastructures import Headers

_RANGE = re.compile(r"bytes=\s*([0-9]{0,30})-([0-9]{0,30})\s*", re.IGNORECASE)


class RangeNotSatisfiable(Exception):
    """The range begins behind the end."""


def http_date(seconds: float) -> str:
    """Unix seconds as in a header."""
    return format_datetime(datetime.fromtimestamp(int(seconds), timezone.utc), usegmt=True)


def is_unchanged(headers: Headers, etag: str, modified_at: float) -> bool:
    """Whether the client has the file already, by If-None-Match, else by If-Modified-Since."""
    if (tags := headers.get("if-none-match")) is not None:
        return tags.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in tags.split(","))
    since = _read_date(headers.get("if-modified-since", ""))
    return since is not None and int(modified_at) <= since


def read_range(headers: Headers, size: int, etag: str, modified_at: float) -> tuple[int, int] | None:
    """First and last byte (exclusive) of the range that is asked for; None means the whole file.

    Several ranges, and what is no range, mean the whole file too, as the RFC allows. Raises RangeNotSatisfiable.
    """
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or found[1] == found[2] == "" or not _holds(headers.get("if-range"), etag, modified_at):
        return None
    if found[1] == "":
        start, end = max(size - int(found[2]), 0), size
    else:
        start, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable
    return start, end


def _holds(if_range: str | None, etag: str, modified_at: float) -> bool:
    return if_range is None or if_range.strip() == etag or _read_date(if_range) == int(modified_at)


def _read_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
