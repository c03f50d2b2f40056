"""The files of the gateway: their bytes in a folder of fsspec (local or S3); all else in the database."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Sequence

import fsspec.core
import sqlalchemy as sa

from lorikeet.gateway.files.blocking import BlockingCalls
from lorikeet.gateway.files.names import is_name, new_name
from lorikeet.gateway.files.part_writer import PartWriter, remove_object
from lorikeet.gateway.files.rows import FileRows
from lorikeet.gateway.files.stored_file import FileTooLarge, Lifecycle, StoredFile

_BLOCK_BYTES = 1 << 20
_THREADS = 16
_log = logging.getLogger(__name__)


class FileStore:
    """Files that never change once they are complete. All methods but `check` may be called from the event loop.

    Each part of a file is an object with a random name, so that nothing of a client's text becomes a path.
    """

    def __init__(self, engine: sa.Engine, url: str, base_url: str) -> None:
        self._engine = engine
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._files.makedirs(self._root, exist_ok=True)
        self._prefix = f"{base_url}/cdn/files/"
        self._threads = BlockingCalls(_THREADS, "files")

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

        return await self.upload(chunks(), len(content), owner, content_type, lifecycle, file_name)

    async def upload(
        self,
        chunks: AsyncIterator[bytes],
        limit: int,
        owner: str,
        content_type: str,
        lifecycle: Lifecycle,
        file_name: str = "",
    ) -> StoredFile:
        """Store what `chunks` yields under a new name. Raises FileTooLarge above `limit` bytes; then, and when it is
        interrupted, no file is left."""
        name, key = new_name(content_type, file_name), secrets.token_hex(16)

        def begin() -> None:
            with self._engine.begin() as connection:
                rows = FileRows(connection)
                rows.add(name, owner, content_type, lifecycle)
                rows.reserve(name, 1, limit, limit, key)

        def end(size: int, digest: str) -> StoredFile:
            with self._engine.begin() as connection:
                rows = FileRows(connection)
                rows.finish_part(name, key, size, digest)
                return rows.complete(name, [(1, digest)])[0]

        try:
            await self._threads.run(begin)
            return await self._threads.run(end, *await self._write(key, chunks, limit))
        except BaseException:
            await self.delete(name)
            raise

    async def begin(self, owner: str, content_type: str, lifecycle: Lifecycle, file_name: str = "") -> str:
        """Begin an upload in parts. Returns the name of the file to be; `complete` makes it."""
        name = new_name(content_type, file_name)

        def add() -> None:
            with self._engine.begin() as connection:
                FileRows(connection).add(name, owner, content_type, lifecycle)

        await self._threads.run(add)
        return name

    async def write_part(self, name: str, number: int, chunks: AsyncIterator[bytes], size: int, limit: int) -> str:
        """Store a part of up to `size` bytes and return its digest; it replaces an earlier one of its number.

        Raises UploadError; FileTooLarge also when all parts together have more than `limit` bytes.
        """
        key = secrets.token_hex(16)

        def reserve() -> None:
            with self._engine.begin() as connection:
                FileRows(connection).reserve(name, number, size, limit, key)

        def finish(size: int, digest: str) -> list[str]:
            with self._engine.begin() as connection:
                return FileRows(connection).finish_part(name, key, size, digest)

        try:
            await self._threads.run(reserve)
            size, digest = await self._write(key, chunks, size)
            garbage = await self._threads.run(finish, size, digest)
        except BaseException:
            await self._threads.run(self._remove_parts, [key])
            raise
        await self._threads.run(self._remove_parts, garbage)
        return digest

    async def complete(self, name: str, parts: Sequence[tuple[int, str]]) -> StoredFile:
        """Make the file of parts, given by number and digest. A repeated call returns it. Raises UploadError."""

        def complete() -> tuple[StoredFile, list[str]]:
            with self._engine.begin() as connection:
                return FileRows(connection).complete(name, parts)

        stored, garbage = await self._threads.run(complete)
        await self._threads.run(self._remove_parts, garbage)
        return stored

    async def find(self, name: str) -> StoredFile | None:
        """What is known of a file; None for unknown names, unfinished uploads, and when its life has ended."""

        def find() -> StoredFile | None:
            with self._engine.connect() as connection:
                return FileRows(connection).find(name)

        return await self._threads.run(find) if is_name(name) else None

    async def read(self, file: StoredFile) -> bytes:
        """The whole content. Raises OSError."""
        parts = [await self._threads.run(self._files.cat_file, self._path(part.key)) for part in file.parts]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_range(self, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `end` (exclusive) in blocks. Raises OSError."""
        place = 0  # of the part in the file
        for part in file.parts:
            first, last = max(start - place, 0), min(end - place, part.size)
            for at in range(first, last, _BLOCK_BYTES):
                stop = min(at + _BLOCK_BYTES, last)
                yield await self._threads.run(self._files.cat_file, self._path(part.key), start=at, end=stop)
            place += part.size

    async def delete(self, name: str) -> None:
        """Remove a file or an upload; nothing happens when there is none."""

        def delete() -> None:
            with self._engine.connect() as connection:
                keys = FileRows(connection).keys_of(name)
            self._remove_parts(keys)
            with self._engine.begin() as connection:
                FileRows(connection).remove(name)

        await self._threads.run(delete)

    async def delete_expired(self) -> int:
        """Remove the files whose life has ended, and what broken uploads left. Returns the number of files removed."""

        def sweep() -> list[str]:
            with self._engine.connect() as connection:
                garbage, expired = FileRows(connection).garbage(), FileRows(connection).expired()
            for key in garbage:
                try:
                    self._remove_parts([key])
                except OSError as error:
                    _log.warning("cannot remove the object %s, the next try is in a minute: %s", key, error)
            return expired

        names, removed = await self._threads.run(sweep), 0
        for name in names:
            try:
                await self.delete(name)
                removed += 1
            except OSError as error:  # one object that cannot be removed keeps no other file alive
                _log.warning("cannot remove the expired file %s, the next try is in a minute: %s", name, error)
        return removed

    async def totals(self) -> tuple[int, int]:
        """The number of files, and their bytes."""

        def totals() -> tuple[int, int]:
            with self._engine.connect() as connection:
                return FileRows(connection).totals()

        return await self._threads.run(totals)

    def check(self) -> None:
        """Raise OSError when the folder cannot be read. It blocks."""
        self._files.info(self._root)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    async def _write(self, key: str, chunks: AsyncIterator[bytes], limit: int) -> tuple[int, str]:
        """Write an object. Returns its size and digest. Raises FileTooLarge above `limit` bytes.

        After an error a part of the object may be left.
        """
        writer = await self._threads.run(PartWriter, self._files, self._path(key))
        size, block = 0, bytearray()
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise FileTooLarge(limit)
                block += chunk
                if len(block) >= _BLOCK_BYTES:
                    await self._threads.run(writer.write, bytes(block))
                    block.clear()
            return size, await self._threads.run(writer.close, bytes(block))
        except BaseException:
            await self._threads.run(writer.abandon)
            raise

    def _remove_parts(self, keys: Sequence[str]) -> None:
        """Remove objects, then their rows. It blocks and raises OSError."""
        if not keys:
            return
        for key in keys:
            remove_object(self._files, self._path(key))
        with self._engine.begin() as connection:
            FileRows(connection).remove_parts(keys)
