"""The database's rows of files and of their parts.

A row precedes what it describes: a part's row exists before its object is written, and is deleted after the object.
So every object has a row, also when the gateway is killed, and the sweeper finds what nobody finished. A file without a
digest is an unfinished upload; it expires as files do.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from lorikeet.gateway.database import file_parts, files
from lorikeet.gateway.files.names import safe_type
from lorikeet.gateway.files.stored_file import (
    FileTooLarge,
    Lifecycle,
    Part,
    StoredFile,
    TooManyAttempts,
    UploadConflict,
    UploadNotFound,
)

UNFINISHED_SECONDS = 86400.0  # after which an unfinished upload is removed

_MAX_ATTEMPTS = 4  # connections that send one part at the same time: a client's retry, when it believes the first lost
_AT_ONCE = 1000  # rows that the sweeper reads
_GARBAGE = 0  # the number of parts whose object must be removed; others count from 1


class FileRows:
    """Reads and changes rows in the transaction of `connection`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, name: str, owner: str, content_type: str, lifecycle: Lifecycle) -> None:
        """Begin an upload."""
        now = time.time()
        values = {
            "name": name,
            "owner": owner,
            "content_type": safe_type(content_type),
            "size": 0,
            "created_at": now,
            "expires_at": now + UNFINISHED_SECONDS,
            "is_private": lifecycle.is_private,
            "keep_seconds": lifecycle.seconds,
        }
        self._connection.execute(sa.insert(files).values(values))

    def reserve(self, name: str, number: int, size: int, limit: int, key: str) -> None:
        """Add a part of up to `size` bytes. Raises UploadNotFound, TooManyAttempts, and FileTooLarge when the largest
        attempts of all parts together have more than `limit` bytes."""
        self._lock(name)
        columns, of_file = file_parts.c, file_parts.c.file == name
        attempts = sa.select(sa.func.count()).where(of_file, columns.number == number, columns.digest.is_(None))
        if (self._connection.scalar(attempts) or 0) >= _MAX_ATTEMPTS:
            raise TooManyAttempts(f"{_MAX_ATTEMPTS} connections send this part already. Try again later.")
        others = (
            sa.select(sa.func.max(columns.size).label("size"))
            .where(of_file, columns.number != number, columns.number != _GARBAGE)
            .group_by(columns.number)
            .subquery()
        )
        reserved = self._connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(others.c.size), 0)))
        if int(reserved or 0) + size > limit:
            raise FileTooLarge(limit)
        values = {"key": key, "file": name, "number": number, "size": size, "created_at": time.time()}
        self._connection.execute(sa.insert(file_parts).values(values))

    def finish_part(self, name: str, key: str, size: int, digest: str) -> list[str]:
        """Note that a part is stored; it replaces an earlier one of its number. Returns the keys that are garbage now.

        A part of a complete file may only repeat what the file holds. Raises UploadNotFound, UploadConflict.
        """
        file = self._lock(name)
        number = self._connection.scalar(sa.select(file_parts.c.number).where(file_parts.c.key == key))
        if number in (None, _GARBAGE):
            raise UploadConflict("The upload was completed while this part was sent.")
        earlier = [part for part in self._parts(name) if part.number == number]
        if file.digest is not None:
            if digest not in (part.digest for part in earlier):
                raise UploadConflict("The upload is complete and cannot change. Begin another one.")
            return self._discard([key])
        stored = sa.update(file_parts).where(file_parts.c.key == key).values(size=size, digest=digest)
        self._connection.execute(stored)
        return self._discard([part.key for part in earlier])

    def complete(self, name: str, chosen: Sequence[tuple[int, str]]) -> tuple[StoredFile, list[str]]:
        """Make a file of parts, given by number and digest, and return it with the keys that are garbage now.

        A repeated call returns the file. Raises UploadNotFound, UploadConflict.
        """
        file, parts = self._lock(name), self._parts(name)
        ordered = sorted(chosen)
        if file.digest is not None:
            if ordered != [(part.number, part.digest) for part in parts]:
                raise UploadConflict("The upload is complete and cannot change. Begin another one.")
            return _stored(file, parts), []
        by_number = {part.number: part for part in parts}
        for number, digest in ordered:
            if number not in by_number or by_number[number].digest != digest:
                raise UploadConflict(f"Part {number} with this etag is not stored. Send it again.")
        kept = [by_number[number] for number, _ in ordered]
        garbage = self._discard_others(name, [part.key for part in kept])
        now = time.time()
        values = {
            "size": sum(part.size for part in kept),
            "digest": _joint_digest(kept),
            "created_at": now,
            "expires_at": None if file.keep_seconds is None else now + file.keep_seconds,
        }
        row = self._connection.execute(sa.update(files).where(files.c.name == name).values(values).returning(files))
        return _stored(row.one(), kept), garbage

    def find(self, name: str) -> StoredFile | None:
        """A complete file that has not expired."""
        row = self._connection.execute(
            sa.select(files).where(files.c.name == name, files.c.digest.is_not(None), _lives())
        ).one_or_none()
        return None if row is None else _stored(row, self._parts(name))

    def totals(self) -> tuple[int, int]:
        """The number of complete files, and their bytes."""
        columns = (sa.func.count(), sa.func.coalesce(sa.func.sum(files.c.size), 0))
        number, size = self._connection.execute(sa.select(*columns).where(files.c.digest.is_not(None))).one()
        return int(number), int(size)

    def expired(self) -> list[str]:
        """Names of files and uploads whose time has passed."""
        return list(self._connection.scalars(sa.select(files.c.name).where(~_lives()).limit(_AT_ONCE)))

    def keys_of(self, name: str) -> list[str]:
        """The keys of all parts, finished or not."""
        return list(self._connection.scalars(sa.select(file_parts.c.key).where(file_parts.c.file == name)))

    def garbage(self) -> list[str]:
        """The keys of parts that no file needs, and of those whose upload was broken off long ago."""
        columns = file_parts.c
        is_stale = columns.digest.is_(None) & (columns.created_at < time.time() - UNFINISHED_SECONDS)
        is_garbage = (columns.number == _GARBAGE) | is_stale
        return list(self._connection.scalars(sa.select(columns.key).where(is_garbage).limit(_AT_ONCE)))

    def remove_parts(self, keys: Iterable[str]) -> None:
        """Delete the rows of parts whose objects are removed."""
        self._connection.execute(sa.delete(file_parts).where(file_parts.c.key.in_(list(keys))))

    def remove(self, name: str) -> None:
        """Delete the row of a file whose parts are removed."""
        self._connection.execute(sa.delete(files).where(files.c.name == name))

    def _lock(self, name: str) -> Any:
        """The row of a file; until the transaction ends no other one changes its parts. Raises UploadNotFound."""
        lock = sa.update(files).where(files.c.name == name, _lives()).values(size=files.c.size).returning(files)
        row = self._connection.execute(lock).one_or_none()
        if row is None:
            raise UploadNotFound("The upload does not exist or has expired. Begin another one.")
        return row

    def _parts(self, name: str) -> list[Part]:
        """The stored parts in their order."""
        columns = file_parts.c
        rows = self._connection.execute(
            sa.select(columns.key, columns.number, columns.size, columns.digest)
            .where(columns.file == name, columns.number != _GARBAGE, columns.digest.is_not(None))
            .order_by(columns.number)
        )
        return [Part(*row) for row in rows]

    def _discard_others(self, name: str, kept: list[str]) -> list[str]:
        return self._discard([key for key in self.keys_of(name) if key not in set(kept)])

    def _discard(self, keys: list[str]) -> list[str]:
        self._connection.execute(sa.update(file_parts).where(file_parts.c.key.in_(keys)).values(number=_GARBAGE))
        return keys


def _lives() -> sa.ColumnElement[bool]:
    return files.c.expires_at.is_(None) | (files.c.expires_at >= time.time())


def _joint_digest(parts: Sequence[Part]) -> str:
    """The digest of a file: that of its only part, else of the parts' digests."""
    digests = [str(part.digest) for part in parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _stored(row: Any, parts: Sequence[Part]) -> StoredFile:
    return StoredFile(
        row.name,
        row.owner,
        row.content_type,
        row.size,
        row.created_at,
        row.expires_at,
        row.is_private,
        row.digest,
        tuple(parts),
    )
