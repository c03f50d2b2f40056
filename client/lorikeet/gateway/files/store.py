"""The files of the gateway: contents in a folder of fsspec (local or S3); names, owners and ends in the database."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import fsspec.core
import sqlalchemy as sa

from lorikeet.gateway.database import files

DEFAULT_TYPE = "application/octet-stream"

_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
_CONTENT_TYPE = re.compile(r"[a-z0-9][\w.+-]{0,63}/[\w.+-]{1,64}", re.ASCII)
_READ_BYTES = 1 << 20


class FileTooLarge(Exception):
    """A content is larger than its limit."""


@dataclass(frozen=True)
class Lifecycle:
    """How many seconds a file lives (None: for ever), and whether only its owner may read it."""

    seconds: float | None
    is_private: bool = False


@dataclass(frozen=True)
class StoredFile:
    """A file. `owner`: the id of a key. Times are Unix seconds; without `expires_at` it lives for ever."""

    name: str
    owner: str
    content_type: str
    size: int
    created_at: float
    expires_at: float | None
    is_private: bool


class FileStore:
    """What blocks runs in threads: all methods may be called from the event loop."""

    def __init__(self, engine: sa.Engine, url: str, base_url: str) -> None:
        self._engine = engine
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._files.makedirs(self._root, exist_ok=True)
        self._prefix = f"{base_url}/cdn/files/"

    def url(self, name: str) -> str:
        """The address of a file."""
        return self._prefix + name

    def name_of(self, url: str) -> str | None:
        """The name in the address of a file of this gateway; None for other URLs."""
        return url.removeprefix(self._prefix).partition("?")[0] if url.startswith(self._prefix) else None

    async def save(
        self, content: bytes, owner: str, content_type: str, lifecycle: Lifecycle, file_name: str = ""
    ) -> StoredFile:
        """Store a content under a new name, see `new_name`."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        name = new_name(content_type, file_name)
        return await self.write(name, chunks(), len(content), owner, content_type, lifecycle)

    async def write(
        self,
        name: str,
        chunks: AsyncIterator[bytes],
        limit: int,
        owner: str,
        content_type: str,
        lifecycle: Lifecycle,
    ) -> StoredFile:
        """Store what `chunks` yields under `name`, from `new_name`. Raises FileTooLarge above `limit` bytes.

        The file exists when this returns: an interrupted call leaves none.
        """
        path, size = self._path(name), 0
        out = await asyncio.to_thread(self._files.open, path, "wb")
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise FileTooLarge(f"larger than {limit} bytes")
                await asyncio.to_thread(out.write, chunk)
            await asyncio.to_thread(out.close)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._discard, out, path))
            raise
        now = time.time()
        expires_at = None if lifecycle.seconds is None else now + lifecycle.seconds
        stored = StoredFile(name, owner, safe_type(content_type), size, now, expires_at, lifecycle.is_private)
        await asyncio.to_thread(self._insert, stored)
        return stored

    async def find(self, name: str) -> StoredFile | None:
        """What is known of a file; None for unknown names and when its life has ended."""
        return await asyncio.to_thread(self._find, name)

    async def read(self, file: StoredFile) -> bytes:
        """The whole content. Raises OSError."""
        content: bytes = await asyncio.to_thread(self._files.cat_file, self._path(file.name))
        return content

    async def read_range(self, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `end` (exclusive) in chunks. Raises OSError."""
        path = self._path(file.name)
        for place in range(start, end, _READ_BYTES):
            last = min(place + _READ_BYTES, end)
            yield await asyncio.to_thread(self._files.cat_file, path, start=place, end=last)

    async def delete(self, name: str) -> None:
        """Remove a file; nothing happens when there is none."""
        await asyncio.to_thread(self._delete, name)

    async def delete_expired(self) -> int:
        """Remove the files whose life has ended. Returns their number."""
        names = await asyncio.to_thread(self._expired)
        for name in names:
            await self.delete(name)
        return len(names)

    async def totals(self) -> tuple[int, int]:
        """The number of files, and their bytes."""
        return await asyncio.to_thread(self._totals)

    def check(self) -> None:
        """Raise OSError when the folder cannot be read. It blocks."""
        self._files.info(self._root)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _insert(self, file: StoredFile) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.insert(files).values(asdict(file)))

    def _find(self, name: str) -> StoredFile | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(files).where(files.c.name == name)).one_or_none()
        found = StoredFile(**row._mapping) if row is not None else None
        return None if found is None or (found.expires_at or time.time()) < time.time() else found

    def _totals(self) -> tuple[int, int]:
        totals = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(files.c.size), 0)).select_from(files)
        with self._engine.connect() as connection:
            number, size = connection.execute(totals).one()
        return int(number), int(size)

    def _expired(self) -> list[str]:
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(files.c.name).where(files.c.expires_at < time.time())))

    def _delete(self, name: str) -> None:
        self._remove(self._path(name))
        with self._engine.begin() as connection:
            connection.execute(sa.delete(files).where(files.c.name == name))

    def _discard(self, out: object, path: str) -> None:
        if hasattr(out, "discard"):  # S3: ends the upload without an object
            out.discard()
        self._remove(path)

    def _remove(self, path: str) -> None:
        if self._files.exists(path):
            self._files.rm_file(path)


def new_name(content_type: str, file_name: str = "") -> str:
    """A name of 128 random bits with the suffix of `file_name`, else of the content type."""
    suffix = "." + file_name.rpartition(".")[2].lower() if "." in file_name else ""
    if not _SUFFIX.fullmatch(suffix):
        suffix = mimetypes.guess_extension(safe_type(content_type)) or ""
    return secrets.token_urlsafe(16) + suffix


def safe_type(content_type: str) -> str:
    """A content type without parameters; `application/octet-stream` for text that is none."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence if _CONTENT_TYPE.fullmatch(essence) else DEFAULT_TYPE
