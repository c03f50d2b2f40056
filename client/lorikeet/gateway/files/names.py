"""Names and content types of files. What clients send for them is hostile; only a plain suffix of it is kept."""

from __future__ import annotations

import mimetypes
import re
import secrets

DEFAULT_TYPE = "application/octet-stream"

_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
_NAME = re.compile(r"[A-Za-z0-9_-]{22}(\.[a-z0-9]{1,12})?")
_CONTENT_TYPE = re.compile(r"[a-z0-9][\w.+-]{0,63}/[\w.+-]{1,64}", re.ASCII)


def new_name(content_type: str, file_name: str = "") -> str:
    """A name of 128 random bits with the suffix of `file_name`, else of the content type."""
    suffix = "." + file_name.rpartition(".")[2].lower() if "." in file_name else ""
    if not _SUFFIX.fullmatch(suffix):
        suffix = mimetypes.guess_extension(safe_type(content_type)) or ""
    return secrets.token_urlsafe(16) + (suffix if _SUFFIX.fullmatch(suffix) else "")


def is_name(text: str) -> bool:
    """Whether `text` has the form of `new_name`."""
    return _NAME.fullmatch(text) is not None


def safe_type(content_type: str) -> str:
    """A content type without parameters; `application/octet-stream` for text that is none."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence if _CONTENT_TYPE.fullmatch(essence) else DEFAULT_TYPE
