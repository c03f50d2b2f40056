"""What the gateway knows of its files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lifecycle:
    """How many seconds a file lives (None: for ever), and whether only its owner may read it."""

    seconds: float | None
    is_private: bool = False


@dataclass(frozen=True)
class Part:
    """One object of the folder for files. `digest`: hex SHA-256 of its bytes, None until they are stored."""

    key: str
    number: int
    size: int
    digest: str | None


@dataclass(frozen=True)
class StoredFile:
    """A complete file: the bytes of its parts, in their order.

    `owner`: the id of a key. Times are Unix seconds; without `expires_at` it lives for ever. `digest`: equal only for
    equal contents.
    """

    name: str
    owner: str
    content_type: str
    size: int
    created_at: float
    expires_at: float | None
    is_private: bool
    digest: str
    parts: tuple[Part, ...]


class UploadError(Exception):
    """An upload cannot go on. The message is for its client."""


class FileTooLarge(UploadError):
    """A file has more bytes than `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The file has more than {limit} bytes. Upload a smaller one.")


class UploadNotFound(UploadError):
    """No upload has this name: it expired, or it was never begun."""


class UploadConflict(UploadError):
    """What a client sends contradicts what is stored."""


class TooManyAttempts(UploadError):
    """Several connections send one part at the same time."""
