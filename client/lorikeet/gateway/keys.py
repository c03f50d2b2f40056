"""API keys: `<id>:<secret>`, of which the database holds a hash of the secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa

from lorikeet.gateway.database import api_keys

_ABSENT_HASH = "0" * 64
CACHE_SECONDS = 2.0


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. Times are Unix seconds."""

    id: str
    name: str
    created_at: float
    revoked_at: float | None


class KeyStore:
    """The keys of one database. `find` answers from memory, which `CACHE_SECONDS` bounds in age."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._hashes: dict[str, str] = {}
        self._read_at = float("-inf")

    def add(self, name: str) -> tuple[ApiKey, str]:
        """Make a key. Returns it, and `<id>:<secret>`, which is not stored."""
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        key = ApiKey(key_id, name, time.time(), None)
        values = {"id": key_id, "name": name, "secret_hash": _hash(secret), "created_at": key.created_at}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(api_keys).values(values))
        return key, f"{key_id}:{secret}"

    def list(self) -> list[ApiKey]:
        """All keys, the oldest first."""
        columns = (api_keys.c.id, api_keys.c.name, api_keys.c.created_at, api_keys.c.revoked_at)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(api_keys.c.created_at))
            return [ApiKey(*row) for row in rows]

    def revoke(self, key_id: str) -> bool:
        """End the validity of a key. Returns whether there was a valid key with this id."""
        valid = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        with self._engine.begin() as connection:
            return bool(connection.execute(sa.update(api_keys).where(valid).values(revoked_at=time.time())).rowcount)

    def is_empty(self) -> bool:
        """Whether no key is valid."""
        self._refresh()
        return not self._hashes

    def is_valid(self, key_id: str) -> bool:
        """Whether a valid key has this id."""
        self._refresh()
        return key_id in self._hashes

    def find(self, credentials: str) -> str | None:
        """The id of the valid key with these credentials (`<id>:<secret>`), compared in constant time."""
        self._refresh()
        key_id, _, secret = credentials.partition(":")
        expected = self._hashes.get(key_id, _ABSENT_HASH)
        return key_id if hmac.compare_digest(expected, _hash(secret)) else None

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < CACHE_SECONDS:
            return
        valid = sa.select(api_keys.c.id, api_keys.c.secret_hash).where(api_keys.c.revoked_at.is_(None))
        with self._engine.connect() as connection:
            self._hashes = {row.id: row.secret_hash for row in connection.execute(valid)}
        self._read_at = time.monotonic()


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so that a slow password hash adds nothing.
    return hashlib.sha256(secret.encode()).hexdigest()
